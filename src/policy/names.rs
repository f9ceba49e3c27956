//! Patterns of file names: `*`, `?`, `[a-z]`. Without regard to case, since not every upstream has one.
//!
//! A name is one part of a path. The matcher is ripgrep's, whose time is linear in the name whatever the pattern.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::shown;

/// Most patterns in one field; each is tried for each name.
pub const MAX_PATTERNS: usize = 256;

/// A list of patterns.
#[derive(Clone)]
pub struct Names {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Names {
    /// Reads patterns separated by commas or line ends.
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns: Vec<_> = text.split([',', '\n']).map(str::trim).filter(|pattern| !pattern.is_empty()).collect();
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} patterns"));
        }
        let mut set = GlobSetBuilder::new();
        for pattern in &patterns {
            if pattern.contains('/') {
                return Err(format!("\"{}\": a pattern is for a name and has no slash; rules are for paths", shown(pattern)));
            }
            let glob = GlobBuilder::new(pattern).case_insensitive(true).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| format!("\"{}\" is not a pattern: {}", shown(pattern), error.kind()))?);
        }
        let set = set.build().map_err(|error| error.kind().to_string())?;
        Ok(Self { patterns: patterns.into_iter().map(str::to_owned).collect(), set })
    }

    /// Whether a name matches one of them.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.set.is_match(Path::new(OsStr::from_bytes(name)))
    }

    /// Whether any part of a path matches one of them.
    pub fn match_in(&self, path: &[u8]) -> bool {
        path.split(|&byte| byte == b'/').any(|part| !part.is_empty() && self.matches(part))
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Names {}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.patterns.fmt(f)
    }
}
