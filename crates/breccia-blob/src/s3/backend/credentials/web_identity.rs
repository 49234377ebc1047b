//! Credentials for a web identity: a token in a file, exchanged at the security token service.
//!
//! Invariant: the token is read anew for each exchange, as whoever writes it replaces it.

use bytes::Bytes;
use hyper::Method;

use super::{Credentials, Variables, ask, expiration, read_token};
use crate::http::RequestHead;
use crate::s3::backend::xml::Element;
use crate::s3::codec::uri::{Slash, encode};

#[derive(Debug)]
pub(super) struct WebIdentity {
    token_file: String,
    role: String,
    session: String,
    endpoint: String,
}

impl WebIdentity {
    pub(super) fn of(variables: &Variables, region: &str) -> Result<Option<Self>, String> {
        let Some(token_file) = variables("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(None);
        };
        let role = variables("AWS_ROLE_ARN");
        let role = role.ok_or("AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not")?;
        Ok(Some(Self {
            token_file,
            role,
            session: variables("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "breccia".to_owned()),
            endpoint: variables("AWS_ENDPOINT_URL_STS")
                .unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com")),
        }))
    }

    pub(super) async fn fetch(&self) -> Result<Credentials, String> {
        let token = read_token(self.token_file.clone()).await?;
        let field = |text: &str| encode(text.as_bytes(), Slash::Escape);
        let form = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
            field(&self.role),
            field(&self.session),
            field(&token),
        );
        let head = RequestHead::new(Method::POST, "/")
            .with("content-type", "application/x-www-form-urlencoded")?;
        let answer = ask(&self.endpoint, head, Bytes::from(form)).await?;
        let document = Element::parse(&answer)?;
        let found = document
            .child("AssumeRoleWithWebIdentityResult")
            .and_then(|result| result.child("Credentials"))
            .ok_or("the answer holds no credentials")?;
        let text = |name: &str| {
            let text = found.text_of(name).filter(|text| !text.is_empty());
            text.map(str::to_owned)
                .ok_or_else(|| format!("the answer holds no {name}"))
        };
        Ok(Credentials {
            access_key: text("AccessKeyId")?,
            secret_key: text("SecretAccessKey")?,
            session_token: Some(text("SessionToken")?),
            expires_ms: Some(expiration(&text("Expiration")?)?),
        })
    }
}
