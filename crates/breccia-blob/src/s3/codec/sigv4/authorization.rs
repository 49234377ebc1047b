//! Where a request says who signed it: the `Authorization` header, or parameters of its query.
//!
//! Nothing is believed here. Invariant: what is returned is complete and well formed.

use super::{
    ALGORITHM, MOST_EXPIRES_S, MOST_SIGNED_HEADERS, RequestHead, Scope, Signature, SignatureError,
};
use crate::s3::codec::uri::Query;
use crate::s3::codec::{hex, time};

/// Which of the two ways, with what only that way says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// `Authorization: AWS4-HMAC-SHA256 …`
    Header,
    /// `?X-Amz-Algorithm=AWS4-HMAC-SHA256&…`
    Presigned {
        /// How long it is valid after its date, in seconds.
        expires_s: u64,
    },
}

/// What a request claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Header or query.
    pub form: Form,
    /// The access key.
    pub access_key: String,
    /// What the signing key is derived for.
    pub scope: Scope,
    /// The names of the signed headers, lower case, in the signer's order.
    pub signed_headers: Vec<String>,
    /// The signature.
    pub signature: Signature,
    /// When it was signed.
    pub date_ms: u64,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

impl Authorization {
    /// Reads a request's claim; none: it is anonymous.
    pub fn parse(
        head: &RequestHead<'_>,
        query: &Query,
    ) -> Result<Option<Authorization>, SignatureError> {
        let presigned = ["X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential"]
            .iter()
            .any(|name| query.has(name));
        match (head.headers.get("authorization"), presigned) {
            (Some(_), true) => Err(SignatureError::TwoForms),
            (Some(value), false) => {
                let value = value.to_str().map_err(|_| malformed("it is not ASCII"))?;
                if head.headers.get_all("authorization").iter().count() > 1 {
                    return Err(malformed("it came more than once"));
                }
                Authorization::from_header(value, head).map(Some)
            }
            (None, true) => Authorization::from_query(query).map(Some),
            (None, false) if query.has("AWSAccessKeyId") && query.has("Signature") => {
                Err(SignatureError::Version2)
            }
            (None, false) => Ok(None),
        }
    }

    fn from_header(value: &str, head: &RequestHead<'_>) -> Result<Authorization, SignatureError> {
        let (algorithm, fields) = value.trim().split_once(' ').unwrap_or((value, ""));
        match algorithm {
            ALGORITHM => {}
            "AWS" => return Err(SignatureError::Version2),
            other if other.starts_with("AWS4-") => return Err(SignatureError::Algorithm),
            _ => return Err(malformed("it does not begin with AWS4-HMAC-SHA256")),
        }
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field
                .trim()
                .split_once('=')
                .ok_or(malformed("a field has no value"))?;
            let field = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(malformed("a field is not known")),
            };
            if field.replace(value).is_some() {
                return Err(malformed("a field came more than once"));
            }
        }
        let credential = credential.ok_or(malformed("Credential is missing"))?;
        let signed = signed.ok_or(malformed("SignedHeaders is missing"))?;
        let signature = signature.ok_or(malformed("Signature is missing"))?;
        let (access_key, scope) = parse_credential(credential, false)?;
        Ok(Authorization {
            form: Form::Header,
            access_key,
            scope,
            signed_headers: parse_names(signed).map_err(malformed)?,
            signature: hex::decode(signature.as_bytes())
                .ok_or(malformed("Signature is not 64 digits"))?,
            date_ms: header_date(head)?,
            session_token: header_text(head, "x-amz-security-token"),
        })
    }

    fn from_query(query: &Query) -> Result<Authorization, SignatureError> {
        match required(query, "X-Amz-Algorithm", "X-Amz-Algorithm is missing")? {
            ALGORITHM => {}
            _ => return Err(SignatureError::Algorithm),
        }
        let credential = required(query, "X-Amz-Credential", "X-Amz-Credential is missing")?;
        let date = required(query, "X-Amz-Date", "X-Amz-Date is missing")?;
        let expires = required(query, "X-Amz-Expires", "X-Amz-Expires is missing")?;
        let signed = required(
            query,
            "X-Amz-SignedHeaders",
            "X-Amz-SignedHeaders is missing",
        )?;
        let signature = required(query, "X-Amz-Signature", "X-Amz-Signature is missing")?;
        let expires_s = Some(expires)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|seconds| (1..=MOST_EXPIRES_S).contains(seconds))
            .ok_or(wrong("X-Amz-Expires is not between 1 and 604800"))?;
        let (access_key, scope) = parse_credential(credential, true)?;
        let session_token = if query.has("X-Amz-Security-Token") {
            Some(required(query, "X-Amz-Security-Token", "the token is missing")?.to_owned())
        } else {
            None
        };
        Ok(Authorization {
            form: Form::Presigned { expires_s },
            access_key,
            scope,
            signed_headers: parse_names(signed).map_err(wrong)?,
            signature: hex::decode(signature.as_bytes())
                .ok_or(wrong("X-Amz-Signature is not 64 digits"))?,
            date_ms: time::parse_amz_date(date).ok_or(wrong("X-Amz-Date is not a date"))?,
            session_token,
        })
    }

    /// Whether it stands in the query.
    pub fn is_presigned(&self) -> bool {
        matches!(self.form, Form::Presigned { .. })
    }

    /// Whether a header is signed, by its name in lower case.
    pub fn signs(&self, name: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed == name)
    }
}

fn malformed(what: &'static str) -> SignatureError {
    SignatureError::HeaderMalformed { what }
}

fn wrong(what: &'static str) -> SignatureError {
    SignatureError::QueryMalformed { what }
}

/// A parameter that must come exactly once: two readers must not pick different ones.
fn required<'a>(
    query: &'a Query,
    name: &str,
    missing: &'static str,
) -> Result<&'a str, SignatureError> {
    let mut values = query.pairs().iter().filter(|(known, _)| known == name);
    let (_, value) = values.next().ok_or(wrong(missing))?;
    if values.next().is_some() {
        return Err(wrong("a parameter came more than once"));
    }
    std::str::from_utf8(value).map_err(|_| wrong("a parameter is not UTF-8"))
}

/// `access-key/date/region/service/aws4_request`; an access key may hold slashes.
fn parse_credential(text: &str, presigned: bool) -> Result<(String, Scope), SignatureError> {
    let refused = |what| SignatureError::Scope { what, presigned };
    let mut parts = text.rsplitn(5, '/');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (terminator, service, region, date, access_key) = (next(), next(), next(), next(), next());
    let (Some(region), Some(date), Some(access_key)) = (region, date, access_key) else {
        return Err(refused("it is not key/date/region/s3/aws4_request"));
    };
    if terminator != Some("aws4_request") {
        return Err(refused("it does not end with aws4_request"));
    }
    if service != Some("s3") {
        return Err(refused("the service is not s3"));
    }
    if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused("the date is not YYYYMMDD"));
    }
    Ok((access_key.to_owned(), Scope::s3(date, region)))
}

fn parse_names(text: &str) -> Result<Vec<String>, &'static str> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(';') {
        if names.len() == MOST_SIGNED_HEADERS {
            return Err("too many headers are signed");
        }
        let letter = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
        if name.is_empty() || !name.bytes().all(letter) {
            return Err("the signed headers are not names in lower case");
        }
        if names.iter().any(|known| known == name) {
            return Err("a header is signed more than once");
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// `x-amz-date`, else `Date` in either form.
fn header_date(head: &RequestHead<'_>) -> Result<u64, SignatureError> {
    let once = |name: &str| {
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(Some(value.to_str().map_err(|_| SignatureError::Date)?)),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(SignatureError::Date),
        }
    };
    let parsed = match once("x-amz-date")? {
        Some(text) => time::parse_amz_date(text),
        None => once("date")?
            .and_then(|text| time::parse_amz_date(text).or_else(|| time::parse_http_date(text))),
    };
    parsed.ok_or(SignatureError::Date)
}

fn header_text(head: &RequestHead<'_>, name: &str) -> Option<String> {
    Some(head.headers.get(name)?.to_str().ok()?.to_owned())
}
