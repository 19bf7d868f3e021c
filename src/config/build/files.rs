//! Refuses settings that name the same file, if one of them would overwrite it.

use super::setting_reader::SettingReader;
use crate::config::key::Key;
use crate::config::plan::Plan;
use crate::config::problem::Origin;
use crate::config::schema::Setting;
use crate::config::settings::{process, sink, source};
use crate::config::value::Typed;
use crate::fault::Code;
use crate::feed::PrefeedKind;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file, by its inode if it exists, and by its directory and name.
#[derive(Debug)]
struct FileIdentity {
    inode: Option<(u64, u64)>,
    name: Option<((u64, u64), OsString)>,
}

impl FileIdentity {
    fn of(path: &Path) -> Self {
        let inode = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let path = resolved(path.to_owned());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => inode(parent),
            _ => inode(Path::new(".")),
        };
        Self { inode: inode(&path), name: directory.zip(path.file_name().map(OsString::from)) }
    }

    fn is(&self, other: &Self) -> bool {
        (self.inode.is_some() && self.inode == other.inode) || (self.name.is_some() && self.name == other.name)
    }
}

/// Follows symbolic links, also to a file that does not exist yet.
fn resolved(mut path: PathBuf) -> PathBuf {
    /// As many as Linux follows.
    const LINKS_MAX: usize = 40;
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file that a setting names.
struct NamedFile {
    setting: String,
    path: PathBuf,
}

impl SettingReader<'_> {
    /// Refuses an output or checkpoint file that another setting names.
    pub(super) fn check_files(&mut self, plan: &Plan) {
        let others = self.files_read(plan);
        let database =
            |key: &Key<PathBuf>| self.given(key).map(|path| family(key, &path, &["-wal", "-shm", "-journal"])).unwrap_or_default();
        let (source, store) = (database(&source::PATH), database(&source::STORE));
        let output = self.given(&sink::PATH).map(|path| family(&sink::PATH, &path, &[])).unwrap_or_default();
        let checkpoint = plan.checkpoint.file().map(|path| family(&process::CHECKPOINT_PATH, path, &[".lock", ".new"])).unwrap_or_default();
        self.refuse_shared(&sink::PATH, &output, [&source, &store, &checkpoint, &others]);
        self.refuse_shared(&process::CHECKPOINT_PATH, &checkpoint, [&source, &store, &others, &Vec::new()]);
        self.refuse_shared(&source::STORE, &store, [&others, &Vec::new(), &Vec::new(), &Vec::new()]);
    }

    fn refuse_shared(&mut self, setting: &Setting, written: &[NamedFile], others: [&Vec<NamedFile>; 4]) {
        for file in written {
            let identity = FileIdentity::of(&file.path);
            if let Some(other) = others.into_iter().flatten().find(|other| FileIdentity::of(&other.path).is(&identity)) {
                let (path, other) = (file.path.display(), &other.setting);
                let message = format!("{path} is also the file of {other} and would be overwritten: name a file of its own");
                return self.refuse(Code::ConfigContradictory, setting, message);
            }
        }
    }

    /// Files that are only read: the configuration, secrets, certificates, prefeed files.
    fn files_read(&self, plan: &Plan) -> Vec<NamedFile> {
        let mut files = Vec::new();
        for (setting, found) in &self.values.given {
            if let Some(Origin::File { path, .. }) = &found.origin
                && !files.iter().any(|known: &NamedFile| known.path == *path)
            {
                files.push(NamedFile { setting: "the configuration".to_owned(), path: path.clone() });
            }
            if let (true, Typed::Text(path)) = (setting.ends_with("_file"), &found.typed) {
                files.push(NamedFile { setting: setting.clone(), path: path.into() });
            }
        }
        for (index, feed) in plan.pipeline.rules.iter().enumerate() {
            if let PrefeedKind::File(path) = &feed.prefeed {
                files.push(NamedFile { setting: format!("feeds.{index}.prefeed"), path: path.to_path_buf() });
            }
        }
        files
    }
}

/// A file that is written, with the files that are written next to it.
fn family(setting: &Setting, path: &Path, suffixes: &[&str]) -> Vec<NamedFile> {
    // SQLite puts its log next to the file that a link points to.
    let path = resolved(path.to_owned());
    let mut files: Vec<_> =
        suffixes.iter().map(|suffix| NamedFile { setting: setting.path.to_owned(), path: with_suffix(&path, suffix) }).collect();
    files.push(NamedFile { setting: setting.path.to_owned(), path });
    files
}
