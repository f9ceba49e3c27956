//! What a folder holds, as lines that can be compared: names, modes, sizes, link targets, hashes.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// One line for each entry below the folder, sorted.
pub fn listing(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(folder, folder, &mut lines);
    lines.sort();
    lines
}

fn walk(top: &Path, folder: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder to list").map(|entry| entry.expect("its entry")) {
        let path = entry.path();
        let meta = entry.metadata().expect("an entry that stays");
        let name = path.strip_prefix(top).expect("a path below the top");
        lines.push(format!("{} {:o} {}", name.display(), meta.mode(), content(&path, &meta)));
        if meta.is_dir() {
            walk(top, &path, lines);
        }
    }
}

fn content(path: &Path, meta: &Metadata) -> String {
    if meta.is_symlink() {
        format!("-> {}", std::fs::read_link(path).expect("a link").display())
    } else if meta.is_file() {
        format!("{} bytes, hash {}", meta.len(), hash(path))
    } else {
        "folder".to_owned()
    }
}

/// The file's SHA-256.
pub fn hash(path: &Path) -> String {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).expect("a file to hash"), &mut Writer(&mut hash)).expect("its bytes");
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Writer<'a>(&'a mut Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Makes a small file whose bytes are all different from their neighbours and depend on `seed`.
pub fn small_file(path: &Path, size: usize, seed: u32) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::fs::write(path, (0..size).map(byte).collect::<Vec<_>>()).expect("a file to send");
}

/// Makes a big file quickly: a sparse one in which every 16 KiB begin with their own number, so that no two blocks of a transfer
/// can be lost, doubled or exchanged unseen.
pub fn big_file(path: &Path, size: u64) {
    let file = File::create(path).expect("a file to send");
    file.set_len(size).expect("its size");
    for offset in (0..size).step_by(16 * 1024) {
        file.write_all_at(&(offset + 1).to_be_bytes(), offset).expect("its marks");
    }
}

#[test]
fn two_trees_that_differ_in_anything_have_different_listings() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut seen = vec![listing(folder.path())];
    small_file(&path, 3, 1);
    seen.push(listing(folder.path()));
    small_file(&path, 3, 2);
    seen.push(listing(folder.path()));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    seen.push(listing(folder.path()));
    std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
    seen.push(listing(folder.path()));
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "{seen:?}");
}
