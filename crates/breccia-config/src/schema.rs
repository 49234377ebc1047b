//! The JSON schema of the configuration file, for editors.
//!
//! Made from the field tables, so it says neither more nor less than the decoder. It cannot say
//! what one table demands of another: `breccia check` does. Invariant: equal tables give equal
//! bytes, whatever order maps have in this build.

use serde_json::{Map, Value, json};

use crate::field::{Default, Kind, NameRule, Need, Table};
use crate::{rule, tables, units};

/// The JSON schema of a configuration file (draft-07, which editors know best).
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut file = object(&tables::FILE, &mut definitions);
    definitions.insert(
        "secret".to_owned(),
        json!({
            "description": "A secret: the text itself, or where it is.",
            "oneOf": [
                { "type": "string", "minLength": 1 },
                sole_key("env", "The environment variable that holds it."),
                sole_key("file", "The file that holds it, as seen from the configuration file."),
            ],
        }),
    );
    if let Some(file) = file.as_object_mut() {
        file.insert(
            "$schema".to_owned(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        file.insert("title".to_owned(), json!("Breccia configuration"));
        file.insert("definitions".to_owned(), Value::Object(definitions));
    }
    file.sort_all_objects();
    file
}

fn sole_key(key: &str, doc: &str) -> Value {
    json!({
        "type": "object",
        "properties": { key: { "type": "string", "minLength": 1, "description": doc } },
        "required": [key],
        "additionalProperties": false,
    })
}

/// Adds a table's definition, once, and refers to it.
fn define(table: &'static Table, definitions: &mut Map<String, Value>) -> Value {
    if !definitions.contains_key(table.name) {
        // Taken before it is known, so that a table that holds itself would end here.
        definitions.insert(table.name.to_owned(), Value::Null);
        let definition = object(table, definitions);
        definitions.insert(table.name.to_owned(), definition);
    }
    json!({ "$ref": format!("#/definitions/{}", table.name) })
}

fn object(table: &'static Table, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in table.fields {
        let mut property = kind(field.kind, definitions);
        if let Some(property) = property.as_object_mut() {
            // Beside a `$ref` draft-07 ignores other words; editors show them all the same.
            property.insert("description".to_owned(), json!(field.doc));
            if let Need::Default(default) = field.need {
                let default = match default {
                    Default::Flag(flag) => json!(flag),
                    Default::Integer(number) => json!(number),
                    Default::Text(text) => json!(text),
                };
                property.insert("default".to_owned(), default);
            }
        }
        if matches!(field.need, Need::Required { .. }) {
            required.push(field.key);
        }
        properties.insert(field.key.to_owned(), property);
    }
    json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn kind(kind: Kind, definitions: &mut Map<String, Value>) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Duration { least, most } => json!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "$comment": format!(
                "{} to {}", units::show_duration(least), units::show_duration(most)
            ),
        }),
        Kind::Size { least, most } => json!({
            "anyOf": [
                { "type": "integer", "minimum": least, "maximum": most },
                { "type": "string", "pattern": "^[0-9]+([KkMmGgTt][Ii]?)?[Bb]?$" },
            ],
            "$comment": format!("{} to {}", units::show_size(least), units::show_size(most)),
        }),
        Kind::Choice(choice) => json!({ "type": "string", "enum": (choice.names)() }),
        Kind::HashTag => pattern("^[!-~]{2}$"),
        Kind::Digest => pattern("^[0-9a-fA-F]{16}$"),
        Kind::RedisUrl => pattern("^([Rr][Ee][Dd][Ii][Ss][Ss]?|[Uu][Nn][Ii][Xx])://"),
        Kind::Address => pattern("^(unix:/|.+:[0-9]+$)"),
        Kind::Bind => pattern("^(unix:/|[0-9.]+:[0-9]+$|\\[[0-9a-fA-F:.%]+\\]:[0-9]+$)"),
        Kind::SocketAddress => pattern("^([0-9.]+|\\[[0-9a-fA-F:.%]+\\]):[0-9]+$"),
        Kind::Secret => json!({ "$ref": "#/definitions/secret" }),
        Kind::EnvName => pattern("^[A-Za-z_][A-Za-z0-9_]*$"),
        Kind::Ruled(rule) => pattern(rule.pattern),
        Kind::Endpoint { .. } => pattern("^[Hh][Tt][Tt][Pp][Ss]?://[^?#@]+$"),
        Kind::SocketPath => pattern("^/"),
        Kind::Text | Kind::Host | Kind::File | Kind::Folder | Kind::OwnFile | Kind::StoreName => {
            json!({ "type": "string", "minLength": 1 })
        }
        Kind::RedisUrls => names(&pattern("^[Rr][Ee][Dd][Ii][Ss][Ss]?://"), 1),
        Kind::StoreNames => names(&json!({ "type": "string", "minLength": 1 }), 1),
        Kind::ReplicaNames => names(&json!({ "type": "string", "minLength": 1 }), 0),
        Kind::BucketNames => names(&pattern(rule::BUCKET.pattern), 1),
        Kind::FunctionNames => names(&pattern(rule::FUNCTION.pattern), 1),
        Kind::Buckets => json!({
            "type": "object",
            "propertyNames": { "pattern": rule::BUCKET.pattern },
            "additionalProperties": { "type": "string", "minLength": 1 },
            "minProperties": 1,
        }),
        Kind::Table(table) => define(table, definitions),
        Kind::List(table) => json!({ "type": "array", "items": define(table, definitions) }),
        Kind::Named { rule, table } => named(rule, &define(table, definitions)),
        Kind::Typed { rule, variants, .. } => {
            let variants: Vec<Value> = variants
                .iter()
                .map(|variant| {
                    let reference = define(variant, definitions);
                    add_type(variant.name, definitions);
                    reference
                })
                .collect();
            named(rule, &json!({ "oneOf": variants }))
        }
    }
}

fn names(item: &Value, least: u32) -> Value {
    json!({ "type": "array", "items": item, "minItems": least, "uniqueItems": true })
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn named(rule: NameRule, inner: &Value) -> Value {
    let names = match rule {
        NameRule::Store => format!(
            "^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{}}}$",
            breccia_core::layout::MAX_NAME_BYTES - 1
        ),
        NameRule::Command => "^[!-~]+$".to_owned(),
    };
    json!({
        "type": "object",
        "propertyNames": { "pattern": names },
        "additionalProperties": inner,
    })
}

/// Adds the `type` that tells a variant from the others.
fn add_type(name: &str, definitions: &mut Map<String, Value>) {
    let Some(definition) = definitions.get_mut(name) else {
        return;
    };
    if let Some(properties) = definition
        .get_mut("properties")
        .and_then(Value::as_object_mut)
    {
        properties.insert(
            "type".to_owned(),
            json!({ "const": name, "description": "The type of the store." }),
        );
    }
    if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
        required.push(json!("type"));
    }
}
