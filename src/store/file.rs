//! Routes in a TOML file.
