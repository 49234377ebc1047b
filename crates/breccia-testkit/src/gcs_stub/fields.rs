//! Partial answers: `fields=items(name,size),nextPageToken`.
//!
//! Not the whole language: no `*` inside a name. Invariant: a field that is not asked for is not in the
//! answer, so a client that forgets one fails here as it would at the service.

use serde_json::{Map, Value};

/// The part of `value` that `wanted` names.
pub(super) fn select(value: &Value, wanted: &str) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| select(item, wanted)).collect(),
        Value::Object(object) => {
            let mut kept = Map::new();
            for (name, inner) in top_level(wanted) {
                if name == "*" {
                    return value.clone();
                }
                if let Some(found) = object.get(name) {
                    let found = match inner {
                        Some(inner) => select(found, inner),
                        None => found.clone(),
                    };
                    kept.insert(name.to_owned(), found);
                }
            }
            Value::Object(kept)
        }
        _ => value.clone(),
    }
}

/// Names of this level, each with what is asked for inside it.
fn top_level(text: &str) -> Vec<(&str, Option<&str>)> {
    let mut depth = 0_u32;
    let pieces = text.split(|letter: char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    pieces
        .map(|piece| {
            let piece = piece.trim();
            match piece.find(['(', '/']) {
                Some(at) => {
                    let (name, inner) = piece.split_at(at);
                    // `a(b,c)` or `a/b`.
                    let inner = match inner.strip_prefix('(') {
                        Some(list) => list.strip_suffix(')').unwrap_or(list),
                        None => inner.get(1..).unwrap_or_default(),
                    };
                    (name, Some(inner))
                }
                None => (piece, None),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::select;

    #[test]
    fn only_the_named_fields_stay() {
        let value = json!({"items": [{"name": "a", "size": "1", "etag": "x"}], "next": "t", "b": {"c": 1, "d": 2}});
        let check = |wanted, left| assert_eq!(select(&value, wanted), left, "{wanted}");
        check("next", json!({"next": "t"}));
        check(
            "items(name,size),next",
            json!({"items": [{"name": "a", "size": "1"}], "next": "t"}),
        );
        check(
            "items/name,b/d",
            json!({"items": [{"name": "a"}], "b": {"d": 2}}),
        );
        check(
            "items",
            json!({"items": [{"name": "a", "size": "1", "etag": "x"}]}),
        );
        check("none", json!({}));
        check("*", value.clone());
    }
}
