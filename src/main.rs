//! The `feedline` program.

use std::process::ExitCode;

/// jemalloc replaces glibc's allocator, also for librdkafka, OpenSSL and SQLite. Memory of events is allocated by one thread and freed by
/// threads of the broker's client: glibc's allocator needs a quarter of the CPU time for that, and keeps more memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    feedline::command::main()
}
