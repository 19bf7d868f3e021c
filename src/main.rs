//! The program.

use std::process::ExitCode;

/// Events are given to a broker's client here and given back by its threads: glibc's allocator takes a quarter of the processor's time
/// at that, and keeps more. It serves librdkafka, OpenSSL and SQLite too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    feedline::command::main()
}
