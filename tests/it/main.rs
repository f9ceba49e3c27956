//! The tests with real parts, one binary.

mod admin;
mod stores;
