//! The log: to standard error, or to a file that is rotated, and opened anew when it is told that somebody else has moved it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};

use crate::config::Log;

/// Starts it; `reopen` is set when the file is to be opened anew.
pub fn start(settings: &Log, reopen: &Arc<AtomicBool>) -> Result<(), String> {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&settings.filter).format_timestamp_millis();
    // It logs the addresses that it calls, and the hook's has a token in it: `no_secret_of_the_router_is_told_anywhere`.
    for module in ["ureq", "ureq::run", "ureq_proto"] {
        builder.filter_module(module, log::LevelFilter::Warn);
    }
    if settings.file.is_some() {
        let file = File { rotated: rotated(settings)?, settings: settings.clone(), reopen: Arc::clone(reopen) };
        builder.target(env_logger::Target::Pipe(Box::new(file)));
    }
    builder.try_init().map_err(|error| error.to_string())
}

fn rotated(settings: &Log) -> Result<FileRotate<AppendCount>, String> {
    let path = settings.file.as_deref().unwrap_or_else(|| "".as_ref());
    // FileRotate itself panics when it cannot open the file.
    let open = std::fs::OpenOptions::new().append(true).create(true).open(path);
    open.map_err(|error| format!("SFTPPROXY_LOG_FILE = {}: {error}", path.display()))?;
    let limit = ContentLimit::BytesSurpassed(settings.file_size);
    Ok(FileRotate::new(path, AppendCount::new(settings.file_count), limit, Compression::None, None))
}

struct File {
    rotated: FileRotate<AppendCount>,
    settings: Log,
    reopen: Arc<AtomicBool>,
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A file that cannot be opened anew stays the old one: better there than nowhere.
        if self.reopen.swap(false, Ordering::Relaxed)
            && let Ok(rotated) = rotated(&self.settings)
        {
            self.rotated = rotated;
        }
        self.rotated.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.rotated.flush()
    }
}
