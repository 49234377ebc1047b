//! Service accounts and the tokens they get for a signed assertion (RFC 7523).
//!
//! Not the service's checks of time or scope. Invariant: a token is given out only for an assertion that an
//! account's key has signed.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::lock;
use super::request::{Request, json_reply};
use crate::http_message::{HttpReply, percent_decoded};
use crate::process::run;

const EMAIL: &str = "breccia@test-project.iam.gserviceaccount.com";
const LIFE_SECONDS: u64 = 3600;

/// Keys that may sign, tokens that are good.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    keys: Mutex<Vec<(Vec<u8>, String)>>,
    tokens: Mutex<(u64, Vec<String>)>,
}

impl Accounts {
    /// Makes a key and writes the file that Google gives for one.
    pub(super) fn create(&self, file: &Path, token_uri: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (key, public) = (folder.path().join("key"), folder.path().join("public"));
        run(Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
                "-out",
            ])
            .arg(&key))?;
        run(Command::new("openssl")
            .args(["rsa", "-RSAPublicKey_out", "-outform", "DER", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(&public))?;
        let content = json!({
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": "1",
            "private_key": std::fs::read_to_string(&key)?,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": token_uri,
        });
        std::fs::write(file, content.to_string()).with_context(|| file.display().to_string())?;
        lock(&self.keys).push((std::fs::read(&public)?, token_uri.to_owned()));
        Ok(())
    }

    pub(super) fn revoke(&self) {
        lock(&self.tokens).1.clear();
    }

    /// Whether the request shows a good token.
    pub(super) fn knows(&self, request: &Request) -> bool {
        let shown = request.header("authorization").unwrap_or_default();
        let shown = shown.strip_prefix("Bearer ").unwrap_or_default();
        lock(&self.tokens).1.iter().any(|token| token == shown)
    }

    /// `POST /token`.
    pub(super) fn token(&self, request: &Request) -> HttpReply {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let field = |wanted: &str| {
            let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| percent_decoded(value))
        };
        let grant = field("grant_type").unwrap_or_default();
        let assertion = field("assertion").unwrap_or_default();
        let good = grant == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            && self.signed(&assertion).is_some();
        if request.method != "POST" || !good {
            let error = json!({"error": "invalid_grant", "error_description": "Invalid JWT"});
            return json_reply(400, &error);
        }
        let mut tokens = lock(&self.tokens);
        tokens.0 += 1;
        let token = format!("stub-token-{}", tokens.0);
        tokens.1.push(token.clone());
        let answer = json!({
            "access_token": token, "expires_in": LIFE_SECONDS, "token_type": "Bearer",
        });
        json_reply(200, &answer)
    }

    /// Something if an account's key has signed this assertion for this stub.
    fn signed(&self, assertion: &str) -> Option<()> {
        let (text, signature) = assertion.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let claims = URL_SAFE_NO_PAD.decode(text.split_once('.')?.1).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let claim = |name: &str| claims.get(name).and_then(Value::as_str);
        let complete = claim("iss") == Some(EMAIL)
            && claim("scope").is_some()
            && claims.get("exp").is_some_and(Value::is_u64);
        let keys = lock(&self.keys);
        keys.iter()
            .filter(|(_, token_uri)| complete && claim("aud") == Some(token_uri))
            .find_map(|(key, _)| {
                let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
                key.verify(text.as_bytes(), &signature).ok()
            })
    }
}
