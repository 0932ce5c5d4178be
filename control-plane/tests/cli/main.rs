//! The real binary, as an operator's shell runs it: arguments in; stdout, stderr and exit code out.

mod canned;
mod fleet;
mod local;
mod program;
mod served;
