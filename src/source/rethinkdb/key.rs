//! The primary key of a document: which spellings are the same key.

use super::value::PSEUDO_TYPE;
use serde_json::Value;
use std::borrow::Cow;

/// A key in the one spelling that all its equals share. The server compares times by their instant, whatever their time zone, and takes
/// `-0.0` for `0`.
pub(super) fn canonical(key: &str) -> Cow<'_, str> {
    if key.starts_with(['[', '{']) || key == "-0.0" || key == "-0" {
        // What this cannot read has one spelling only.
        let Ok(mut value) = serde_json::from_str(key) else { return Cow::Borrowed(key) };
        simplify(&mut value);
        return Cow::Owned(value.to_string());
    }
    Cow::Borrowed(key)
}

fn simplify(value: &mut Value) {
    match value {
        Value::Number(number) if number.as_f64() == Some(0.0) => *value = 0.into(),
        Value::Array(elements) => elements.iter_mut().for_each(simplify),
        Value::Object(fields) => {
            if fields.get(PSEUDO_TYPE).is_some_and(|kind| kind == "TIME") {
                fields.remove("timezone");
            }
            fields.values_mut().for_each(simplify);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn equal_keys_have_one_spelling() {
        let time = |zone: &str| format!(r#"{{"$reql_type$":"TIME","epoch_time":1.5,"timezone":"{zone}"}}"#);
        assert_eq!(canonical(&time("+00:00")), canonical(&time("+02:00")));
        assert_eq!(canonical(&format!("[1,{}]", time("+00:00"))), canonical(&format!("[1,{}]", time("-01:00"))));
        assert_eq!(canonical("-0.0"), "0");
        assert_eq!(canonical("[-0.0]"), "[0]");
        for (left, right) in [("1", "\"1\""), ("[1]", "[\"1\"]"), ("true", "\"true\""), ("[1,2]", "[12]")] {
            assert_ne!(canonical(left), canonical(right));
        }
        assert_ne!(canonical("[1e999]"), canonical("[2e999]"), "what cannot be read stays apart");
        assert_eq!(canonical("\"a\\u0000\""), "\"a\\u0000\"");
    }
}
