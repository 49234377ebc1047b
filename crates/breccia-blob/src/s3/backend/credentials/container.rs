//! Credentials that a container's surroundings serve by HTTP.
//!
//! Invariant: over plain HTTP they are fetched from this machine or its link only.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::Method;

use super::{Credentials, Variables, ask, read_answer, read_token};
use crate::http::{Endpoint, RequestHead};

/// Where relative addresses lie.
const RELATIVE_TO: &str = "http://169.254.170.2";
/// Addresses outside of this machine that may be asked by plain HTTP: those of the two container services.
const LINK_ADDRESSES: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

#[derive(Debug)]
pub(super) struct Container {
    server: String,
    target: String,
    token: Option<Token>,
}

enum Token {
    Text(String),
    File(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token")
    }
}

impl Container {
    pub(super) fn of(variables: &Variables) -> Result<Option<Self>, String> {
        let url = match (
            variables("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            variables("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => format!("{RELATIVE_TO}{path}"),
            (None, Some(url)) => url,
            (None, None) => return Ok(None),
        };
        let behind_scheme = url.find("://").map_or(0, |at| at + 3);
        let rest = url.get(behind_scheme..).unwrap_or_default();
        let at = rest.find('/').map_or(url.len(), |at| behind_scheme + at);
        let (server, target) = url.split_at(at);
        let endpoint = Endpoint::parse(server)?;
        if !endpoint.https && !is_near(&endpoint.host) {
            return Err(format!(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI: {server} is neither https nor this machine"
            ));
        }
        let file = variables("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(Token::File);
        let text = || variables("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Token::Text);
        Ok(Some(Self {
            server: server.to_owned(),
            target: if target.is_empty() { "/" } else { target }.to_owned(),
            token: file.or_else(text),
        }))
    }

    pub(super) async fn fetch(&self) -> Result<Credentials, String> {
        let mut head = RequestHead::new(Method::GET, self.target.clone());
        let token = match &self.token {
            None => None,
            Some(Token::Text(text)) => Some(text.clone()),
            Some(Token::File(path)) => Some(read_token(path.clone()).await?),
        };
        if let Some(token) = token {
            head.set("authorization", &token)?;
        }
        read_answer(&ask(&self.server, head, Bytes::new()).await?)
    }
}

fn is_near(host: &str) -> bool {
    let loopback = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    host == "localhost" || loopback || LINK_ADDRESSES.contains(&host)
}
