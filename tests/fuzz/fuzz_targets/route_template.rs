//! Any text is a template or is refused; what is accepted prints as it was written and expands.
#![no_main]

use feedline::event::Operation;
use feedline::feed::pattern::TablePattern;
use feedline::feed::route::{RouteValues, Template};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(template) = Template::parse(text) {
        assert_eq!(template.to_string(), text);
        for operation in Operation::ALL {
            let place = RouteValues { name: "shop", database: "db", schema: text, table: "{table}", operation };
            assert!(!template.expand(&place).is_empty());
        }
    }
    if let Ok(pattern) = TablePattern::parse(text) {
        assert_eq!(pattern.to_string(), text);
        let _matches = pattern.matches(text, text, "main");
    }
});
