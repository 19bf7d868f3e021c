//! `sink.kind = "file"`: no other file is overwritten.

use super::{Directory, Run, eventually, output, text};
use rustix::process::Signal;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn set_sink(path: &Path) -> String {
    format!("sink.path={}", path.display())
}

#[test]
fn a_file_of_the_pipeline_itself_is_refused_by_any_name() {
    let directory = Directory::new();
    let configuration = directory.pipeline();
    let file = |name: &str| directory.0.join(name);
    symlink(file("shop.db"), file("link")).unwrap();
    std::fs::hard_link(file("shop.db"), file("hard")).unwrap();
    symlink(file("shop.db-wal"), file("dangling")).unwrap();
    std::fs::write(file("rows.jsonl"), "").unwrap();
    let before = std::fs::read(file("shop.db")).unwrap();
    let relative = PathBuf::from(format!("{}/./../{}/shop.db", directory.0.display(), directory.0.file_name().unwrap().to_str().unwrap()));
    let mut paths = vec![relative, configuration.clone(), file("rows.jsonl")];
    paths.extend(
        ["shop.db", "link", "hard", "shop.db-wal", "dangling", "shop.db-journal", "cli.checkpoint", "cli.checkpoint.lock"].map(file),
    );
    for path in paths {
        for command in ["check", "run"] {
            let rows = format!("feeds=[{{tables=[\"t\"],prefeed={{file=\"{}\"}}}}]", file("rows.jsonl").display());
            let refused = output(&[command, "-c", configuration.to_str().unwrap(), "--set", &set_sink(&path), "--set", &rows]);
            let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
            assert_eq!(refused.status.code(), Some(2), "{command} {}: {said}", path.display());
            assert!(said.contains("FL1005") && said.contains("sink.path") && said.contains("a file of its own"), "{said}");
        }
    }
    assert_eq!(std::fs::read(file("shop.db")).unwrap(), before);
    assert!(!file("shop.db-journal").exists() && !file("cli.checkpoint").exists(), "nothing is created");
    // A checkpoint file is written too.
    let checkpoint = format!("checkpoint.path={}", file("hard").display());
    let refused = output(&["check", "-c", configuration.to_str().unwrap(), "--set", &checkpoint]);
    assert!(refused.status.code() == Some(2) && text(&refused.stdout).contains("FL1005"), "{refused:?}");
}

#[test]
fn a_foreign_file_stops_a_start_before_anything_is_created() {
    let directory = Directory::new();
    let configuration = directory.pipeline();
    let notes = directory.0.join("notes.txt");
    std::fs::write(&notes, "my notes\nand more").unwrap();
    for command in ["check", "run"] {
        let refused = output(&[command, "-c", configuration.to_str().unwrap(), "--set", &set_sink(&notes)]);
        let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
        assert_eq!(refused.status.code(), Some(71), "{said}");
        assert!(said.contains("FL3103") && said.contains("notes.txt"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "my notes\nand more");
    assert!(!directory.0.join("cli.checkpoint").exists(), "nothing is created");
    // The remedy: move it away.
    std::fs::rename(&notes, directory.0.join("moved")).unwrap();
    let mut run = Run::start(&configuration, &["--set", &set_sink(&notes)]);
    eventually("the rows", || (std::fs::read_to_string(&notes).unwrap_or_default().lines().count() == 2).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    // A second run continues its own file, after a line that a crash tore.
    let mut torn = std::fs::read(&notes).unwrap();
    torn.extend_from_slice(b"{\"v\":1,\"op\":\"ins");
    std::fs::write(&notes, torn).unwrap();
    directory.execute("INSERT INTO t (v) VALUES ('c')");
    let mut run = Run::start(&configuration, &["--set", &set_sink(&notes)]);
    eventually("the third row", || std::fs::read_to_string(&notes).unwrap().lines().nth(2)?.ends_with('}').then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    let whole = std::fs::read_to_string(&notes).unwrap();
    assert!(whole.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{whole}");
}
