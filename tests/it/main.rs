//! All tests that need the world, in one binary.

mod home;
mod raw;
