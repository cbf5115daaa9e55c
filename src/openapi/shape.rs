//! JSON Schemas (2020-12, which OpenAPI 3.1 and AsyncAPI 3 take as well), written short.

use serde_json::{Map, Value, json};

/// Where the definitions of a file stand.
pub(crate) const DEFINITIONS: &str = "#/$defs/";

/// One member of an object.
pub(crate) struct Field {
    name: &'static str,
    shape: Value,
    about: &'static str,
    always: bool,
}

/// A member that is always there.
pub(crate) fn field(name: &'static str, shape: Value, about: &'static str) -> Field {
    Field {
        name,
        shape,
        about,
        always: true,
    }
}

/// A member that may be absent.
pub(crate) fn maybe(name: &'static str, shape: Value, about: &'static str) -> Field {
    Field {
        always: false,
        ..field(name, shape, about)
    }
}

/// An object with at least these members.
pub(crate) fn object(about: &str, fields: impl IntoIterator<Item = Field>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let mut shape = field.shape;
        if !field.about.is_empty() {
            shape["description"] = field.about.into();
        }
        if field.always {
            required.push(field.name);
        }
        properties.insert(field.name.to_owned(), shape);
    }
    let mut shape = json!({ "type": "object", "properties": properties });
    if !about.is_empty() {
        shape["description"] = about.into();
    }
    if !required.is_empty() {
        shape["required"] = required.into();
    }
    shape
}

pub(crate) fn text() -> Value {
    json!({ "type": "string" })
}

/// A number of things.
pub(crate) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(crate) fn integer() -> Value {
    json!({ "type": "integer" })
}

pub(crate) fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// Exactly this text.
pub(crate) fn word(word: &str) -> Value {
    json!({ "const": word })
}

/// One of these texts.
pub(crate) fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> Value {
    json!({ "type": "string", "enum": words.into_iter().collect::<Vec<_>>() })
}

pub(crate) fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// `null` as well.
pub(crate) fn or_null(mut shape: Value) -> Value {
    match shape["type"].as_str() {
        Some(kind) if shape.get("enum").is_none() => {
            shape["type"] = json!([kind, "null"]);
            shape
        }
        _ => json!({ "anyOf": [shape, { "type": "null" }] }),
    }
}

/// The definition of this name.
pub(crate) fn refers(name: &str) -> Value {
    json!({ "$ref": format!("{DEFINITIONS}{name}") })
}

/// The same with its definitions standing elsewhere.
pub(crate) fn moved(mut shape: Value, to: &str) -> Value {
    fn turn(value: &mut Value, to: &str) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let local = member
                        .as_str()
                        .and_then(|text| text.strip_prefix(DEFINITIONS));
                    match local {
                        Some(local) if name == "$ref" => *member = format!("{to}{local}").into(),
                        _ => turn(member, to),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| turn(item, to)),
            _ => {}
        }
    }
    turn(&mut shape, to);
    shape
}
