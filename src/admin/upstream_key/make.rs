//! `upstream-key new`, and how a key is made and kept.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::super::{Console, Context, Trouble, print, refused, text};
use super::{Owner, credential, entry, names, say_lines};
use crate::ffi::PrivateKey;
use crate::identity::PublicKey;
use crate::route::Record;
use crate::sealed::{Keys, Sealed};
use crate::secret::Secret;
use crate::upstream::{Credential, has_master, master};

/// Bits of a new RSA key: as ssh-keygen has it.
const RSA_BITS: i32 = 3072;

/// `upstream-key new`.
pub fn new(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let owner = Owner::required(matches)?;
    let Keys { place, now, .. } = match &owner {
        Owner::Host(address) => entry(context, address)?.keys,
        Owner::User(_) => owner.keys(context)?,
    };
    if let Some(now) = now {
        let name = owner.argument();
        return Err(refused(format!("{owner} has a key already ({now}): sftpproxy upstream-key rotate {name}")));
    }
    // What was used until now goes on until the upstream has the new key.
    let before = match &owner {
        Owner::User(user) => credential(context, &super::route(context, user)?)?,
        Owner::Host(_) => Credential::common(context.upstream),
    };
    let (value, public) = made(matches, context, &place)?;
    let old = if before.is_ok() { "common" } else { "" };
    owner.put(context, &Record::from([("key".to_owned(), value), ("key_old".to_owned(), old.to_owned())]))?;
    let before = before.map(|credential| names(&credential.sources)).ok();
    tell(matches, console, (&owner, &public), before.as_deref())
}

/// Says what was made, what its upstreams must have, and what is to be done next.
pub fn tell(
    matches: &ArgMatches,
    console: &mut Console<'_>,
    (owner, public): (&Owner, &PublicKey),
    before: Option<&str>,
) -> Result<(), Trouble> {
    let line = format!("{} {} sftpproxy", public.kind(), public.base64());
    if matches.get_flag("json") {
        let (name, value) = owner.json();
        let mut object = Map::new();
        object.insert(name.to_owned(), value);
        object.extend([
            ("type".to_owned(), json!(public.kind())),
            ("fingerprint".to_owned(), json!(public.fingerprint().to_string())),
            ("authorized_keys".to_owned(), json!(line)),
            ("old".to_owned(), json!(before)),
        ]);
        return Ok(print::json(console.out, &Value::Object(object))?);
    }
    writeln!(console.out, "{owner}: new key {} {}", public.kind(), public.fingerprint())?;
    say_lines(console, "\nauthorized_keys of the upstream's account must have:", &[line])?;
    if let Some(before) = before {
        let name = owner.argument();
        writeln!(
            console.out,
            "\nuntil then the old one is tried after it ({before}); see whether the upstream takes the new one, and drop the old one:\n\
             sftpproxy upstream-key rotate {name} --check\nsftpproxy upstream-key rotate {name} --finish"
        )?;
    }
    Ok(())
}

/// Makes a key for a place and returns the value of the field, and the public half.
pub fn made(matches: &ArgMatches, context: &Context<'_>, place: &str) -> Result<(String, PublicKey), Trouble> {
    let file = matches.get_flag("file");
    if !file && !has_master(context.upstream) {
        return Err(refused(format!(
            "there is no secret key to encrypt it with: set SFTPPROXY_SECRET_KEY_FILE, or give --file to keep it in {} on this machine",
            context.upstream.keys_dir.display()
        )));
    }
    let key = match text(matches, "type") {
        Some("rsa") => PrivateKey::new_rsa(RSA_BITS),
        _ => PrivateKey::new_ed25519(),
    };
    let (public, private) = key.and_then(|key| Ok((key.public()?, key.export()?))).map_err(Trouble::Failed)?;
    if file {
        let name = written(&context.upstream.keys_dir, &private, &public).map_err(Trouble::Failed)?;
        return Ok((name, public));
    }
    let master = master(context.upstream).map_err(Trouble::Failed)?;
    let sealed = Sealed::seal(private.expose(), public.clone(), place, &master).map_err(Trouble::Failed)?;
    Ok((sealed.text(), public))
}

/// Writes a key to a new file in the folder, for the folder's owner alone, and returns its name: the key's, never a user's.
fn written(folder: &Path, private: &Secret, public: &PublicKey) -> Result<String, String> {
    let says = |error: &dyn std::fmt::Display| format!("keys directory {}: {error}", folder.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| says(&error))?;
    let print: String = public.fingerprint().to_string().chars().skip(7).filter(char::is_ascii_alphanumeric).take(16).collect();
    let name = format!("{}-{print}", public.kind());
    // Made with mode 0600 by tempfile.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| says(&error))?;
    file.write_all(private.expose()).map_err(|error| says(&error))?;
    let (mine, theirs) = (file.as_file().metadata(), std::fs::metadata(folder));
    let (mine, theirs) = (mine.map_err(|error| says(&error))?, theirs.map_err(|error| says(&error))?);
    if mine.uid() != theirs.uid() {
        let owned = std::os::unix::fs::fchown(file.as_file(), Some(theirs.uid()), Some(theirs.gid()));
        owned.map_err(|error| says(&error))?;
    }
    file.as_file().sync_all().map_err(|error| says(&error))?;
    file.persist_noclobber(folder.join(&name)).map_err(|error| says(&error.error))?;
    Ok(name)
}
