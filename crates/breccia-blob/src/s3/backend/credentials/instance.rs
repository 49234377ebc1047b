//! Credentials of the instance's role, from the metadata service, version 2.
//!
//! Invariant: every question carries a session token, so a service that only speaks version 1 is
//! not asked.

use bytes::Bytes;
use hyper::Method;

use super::{Credentials, Variables, ask, read_answer};
use crate::http::RequestHead;

const SERVICE: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// How long a session token is asked for; each fetch asks for its own.
const TOKEN_SECONDS: &str = "300";

#[derive(Debug)]
pub(super) struct Instance {
    server: String,
}

impl Instance {
    pub(super) fn of(variables: &Variables) -> Result<Self, String> {
        if variables("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|text| text.eq_ignore_ascii_case("true"))
        {
            return Err(
                "there are no credentials: none are configured, the environment has none, and \
                 AWS_EC2_METADATA_DISABLED is set"
                    .to_owned(),
            );
        }
        let server = variables("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        Ok(Self {
            server: server.map_or_else(
                || SERVICE.to_owned(),
                |url| url.trim_end_matches('/').to_owned(),
            ),
        })
    }

    pub(super) async fn fetch(&self) -> Result<Credentials, String> {
        let head = RequestHead::new(Method::PUT, "/latest/api/token")
            .with("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)?;
        let token = self.text(head).await?;
        let question = |target: String| {
            RequestHead::new(Method::GET, target).with("x-aws-ec2-metadata-token", &token)
        };
        let roles = self.text(question(ROLES.to_owned())?).await?;
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err("the instance has no role".to_owned());
        }
        let head = question(format!("{ROLES}{role}"))?;
        read_answer(&ask(&self.server, head, Bytes::new()).await?)
    }

    async fn text(&self, head: RequestHead) -> Result<String, String> {
        let bytes = ask(&self.server, head, Bytes::new()).await?;
        let text = String::from_utf8(bytes.to_vec());
        text.map_err(|_| "the answer is not text".to_owned())
    }
}
