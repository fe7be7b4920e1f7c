//! The `colo` command: arguments in, library calls, output out.

fn main() {}
