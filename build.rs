//! Tells the build which compiler and which revision it is made of.

use std::path::Path;
use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FEEDLINE_REVISION");
    // A commit changes the revision, and nothing else that cargo looks at. In a linked worktree these lie elsewhere.
    let paths = ["HEAD", "logs/HEAD"].into_iter().filter_map(|path| output("git", &["rev-parse", "--git-path", path]));
    for path in paths.filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    // "rustc 1.95.0 (59807616e 2026-04-14)" says the version second.
    let version = compiler.as_deref().and_then(|text| text.split(' ').nth(1)).unwrap_or("unknown");
    let revision = std::env::var("FEEDLINE_REVISION").ok().or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=FEEDLINE_RUSTC={version}");
    println!("cargo::rustc-env=FEEDLINE_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}
