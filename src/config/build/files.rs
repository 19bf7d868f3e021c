//! Two settings that name one file: what the one writes, the other would read or write too.

use super::Reader;
use crate::config::plan::{CheckpointPlan, Plan, SinkPlan, SourcePlan};
use crate::config::problem::Origin;
use crate::config::read::Typed;
use crate::fault::Code;
use crate::feed::PrefeedKind;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file, by what it is where it is there, and by where it would be made.
#[derive(Debug)]
struct FileIdentity {
    node: Option<(u64, u64)>,
    name: Option<((u64, u64), OsString)>,
}

impl FileIdentity {
    fn of(path: &Path) -> Self {
        let node = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let path = resolved(path.to_owned());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => node(parent),
            _ => node(Path::new(".")),
        };
        Self { node: node(&path), name: directory.zip(path.file_name().map(OsString::from)) }
    }

    fn is(&self, other: &Self) -> bool {
        (self.node.is_some() && self.node == other.node) || (self.name.is_some() && self.name == other.name)
    }
}

/// Where a link leads, also one that leads to a file still to be made.
fn resolved(mut path: PathBuf) -> PathBuf {
    /// As many as the system follows.
    const LINKS_MAX: usize = 40;
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file that a setting stands for.
struct Named {
    setting: String,
    path: PathBuf,
}

impl Reader<'_> {
    /// Refuses an output or a checkpoint that is another file of the pipeline.
    pub(super) fn check_files(&mut self, plan: &Plan) {
        let others = self.read_files(plan);
        let source = match &plan.source {
            SourcePlan::Sqlite { path } => family("source.path", path, &["-wal", "-shm", "-journal"]),
            SourcePlan::Postgres(_) => Vec::new(),
        };
        let checkpoint = match &plan.checkpoint {
            CheckpointPlan::File { path } => family("checkpoint.path", path, &[".lock", ".new"]),
            CheckpointPlan::Broker { .. } => Vec::new(),
        };
        let output = match &plan.sink {
            SinkPlan::File { path } => family("sink.path", path, &[]),
            _ => Vec::new(),
        };
        self.apart("sink.path", &output, [&source, &checkpoint, &others]);
        self.apart("checkpoint.path", &checkpoint, [&source, &others, &Vec::new()]);
    }

    fn apart(&mut self, setting: &str, written: &[Named], others: [&Vec<Named>; 3]) {
        for file in written {
            let place = FileIdentity::of(&file.path);
            if let Some(other) = others.into_iter().flatten().find(|other| FileIdentity::of(&other.path).is(&place)) {
                let (path, other) = (file.path.display(), &other.setting);
                let message = format!("{path} is a file of {other} too, which would be destroyed: name a file of its own");
                return self.refuse(Code::ConfigContradictory, setting, message);
            }
        }
    }

    /// What is only read: the configuration itself, secrets, certificates, rows.
    fn read_files(&self, plan: &Plan) -> Vec<Named> {
        let mut files = Vec::new();
        for (setting, found) in &self.values.found {
            if let Some(Origin::File { path, .. }) = &found.origin
                && !files.iter().any(|known: &Named| known.path == *path)
            {
                files.push(Named { setting: "the configuration".to_owned(), path: path.clone() });
            }
            if let (true, Typed::Text(path)) = (setting.ends_with("_file"), &found.typed) {
                files.push(Named { setting: setting.clone(), path: path.into() });
            }
        }
        for (index, feed) in plan.feeds.iter().enumerate() {
            if let PrefeedKind::File(path) = &feed.prefeed {
                files.push(Named { setting: format!("feeds.{index}.prefeed"), path: path.to_path_buf() });
            }
        }
        files
    }
}

fn family(setting: &str, path: &Path, suffixes: &[&str]) -> Vec<Named> {
    // A database is another file than its link, and its log lies beside the file itself.
    let path = resolved(path.to_owned());
    let mut files: Vec<_> = suffixes.iter().map(|suffix| Named { setting: setting.to_owned(), path: beside(&path, suffix) }).collect();
    files.push(Named { setting: setting.to_owned(), path });
    files
}
