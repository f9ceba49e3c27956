//! What may be done below a path: a set of rights, and where the longest prefix gives which set.

use std::ops::BitAnd;

use crate::path::is_below;

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u16);

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// List a directory.
    pub const LIST: Self = Self(1);
    /// Read a file's content.
    pub const READ: Self = Self(1 << 1);
    /// Make a file that was not there, and write it.
    pub const CREATE: Self = Self(1 << 2);
    /// Write a file that was there.
    pub const OVERWRITE: Self = Self(1 << 3);
    /// Remove files and directories.
    pub const DELETE: Self = Self(1 << 4);
    /// Give another name, within or between places that both have it.
    pub const RENAME: Self = Self(1 << 5);
    /// Make directories.
    pub const MKDIR: Self = Self(1 << 6);
    /// Set permissions, owner, times.
    pub const ATTRIBUTES: Self = Self(1 << 7);
    /// Make hard and symbolic links, between places that both have it.
    pub const LINK: Self = Self(1 << 8);
    /// Everything.
    pub const ALL: Self = Self((1 << 9) - 1);

    /// The rights in a record's words, in this order.
    pub const WORDS: [(&'static str, Self); 9] = [
        ("list", Self::LIST),
        ("read", Self::READ),
        ("create", Self::CREATE),
        ("overwrite", Self::OVERWRITE),
        ("delete", Self::DELETE),
        ("rename", Self::RENAME),
        ("mkdir", Self::MKDIR),
        ("attributes", Self::ATTRIBUTES),
        ("link", Self::LINK),
    ];

    /// The rights of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are there.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The first right's word; "nothing" if there is none.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, right)| self.0 & right.0 != 0).map_or("nothing", |(word, _)| word)
    }
}

impl BitAnd for Rights {
    type Output = Self;

    /// What is in both.
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Rights by path prefix. Prefixes are normal paths as the user sees them; the longest one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The longest first.
    list: Vec<(Vec<u8>, Rights)>,
}

impl Rules {
    /// The same rights everywhere.
    pub fn everywhere(rights: Rights) -> Self {
        Self { list: vec![(b"/".to_vec(), rights)] }
    }

    /// Rights by prefix.
    pub fn new(mut list: Vec<(Vec<u8>, Rights)>) -> Self {
        list.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { list }
    }

    /// Whether paths make a difference.
    pub fn look_at_paths(&self) -> bool {
        self.list.len() != 1 || self.list[0].0 != b"/"
    }

    /// What may be done with a path: nothing where no prefix fits.
    pub fn at(&self, path: &[u8]) -> Rights {
        if !self.look_at_paths() {
            return self.list[0].1;
        }
        self.list.iter().find(|(prefix, _)| is_below(path, prefix)).map_or(Rights::NONE, |(_, rights)| *rights)
    }

    /// Whether there is a place with rights of its own below a path: it would move with it.
    pub fn is_above_others(&self, path: &[u8]) -> bool {
        self.look_at_paths() && self.list.iter().any(|(prefix, _)| prefix != path && is_below(prefix, path))
    }

    /// Whether a path leads to a place where something may be done.
    pub fn leads_on(&self, path: &[u8]) -> bool {
        self.look_at_paths() && self.list.iter().any(|(prefix, rights)| !rights.is_none() && is_below(prefix, path))
    }

    /// Whether a right is given anywhere.
    pub fn anywhere(&self, right: Rights) -> bool {
        self.list.iter().any(|(_, rights)| rights.has(right))
    }
}
