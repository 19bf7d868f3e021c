//! Standard output and files.
