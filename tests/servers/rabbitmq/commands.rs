//! Commands of `rabbitmqctl` that tests use often, as what it evaluates in the broker.
//!
//! The program boots a virtual machine for each command, which takes two seconds of a core. `erl_call`, which comes with Erlang, takes a
//! hundredth of that.

/// The Erlang expression that does what `rabbitmqctl` does with these arguments, and returns `ok`. `None` for other commands.
pub(super) fn expression(arguments: &[&str]) -> Option<String> {
    Some(match *arguments {
        ["add_user", name, password] => call("rabbit_auth_backend_internal:add_user", &[name, password]),
        ["delete_user", name] => call("rabbit_auth_backend_internal:delete_user", &[name]),
        ["change_password", name, password] => call("rabbit_auth_backend_internal:change_password", &[name, password]),
        ["set_user_tags", name, tag] => format!("rabbit_auth_backend_internal:set_tags({}, [{tag}], {BY})", binary(name)),
        ["set_permissions", "-p", host, name, configure, write, read] => {
            call("rabbit_auth_backend_internal:set_permissions", &[name, host, configure, write, read])
        }
        ["set_topic_permissions", "-p", host, name, exchange, write, read] => {
            call("rabbit_auth_backend_internal:set_topic_permissions", &[name, host, exchange, write, read])
        }
        ["set_policy", "--apply-to", kind, name, pattern, definition] | ["set_policy", name, pattern, definition, "--apply-to", kind] => {
            let [name, pattern, definition, kind] = [name, pattern, definition, kind].map(binary);
            format!("rabbit_policy:parse_set(<<\"/\">>, {name}, {pattern}, {definition}, 0, {kind}, {BY})")
        }
        ["clear_policy", name] => call("rabbit_policy:delete", &["/", name]),
        ["close_all_connections", reason] => {
            format!("lists:foreach(fun(C) -> rabbit_networking:close_connection(C, {reason:?}) end, rabbit_networking:connections())")
        }
        ["set_vm_memory_high_watermark", fraction] => format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction})"),
        _ => return None,
    })
}

/// Who changes something, as the broker notes it.
const BY: &str = "<<\"tests\">>";

/// A call with texts, and with who calls.
fn call(function: &str, texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| binary(text)).collect();
    format!("{function}({}, {BY})", texts.join(", "))
}

fn binary(text: &str) -> String {
    format!("<<\"{}\"/utf8>>", text.replace('\\', "\\\\").replace('"', "\\\""))
}
