//! The checkpoint file.
