//! Which of a kernel's modules an image needs, by what the modules say themselves (their section `.modinfo`). It makes depmod, and with
//! it kmod, superfluous.

use crate::elf::Elf;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Some modules of one kernel, in an order in which they can be loaded.
pub(crate) struct Modules {
    /// `6.1.0-56-amd64`.
    pub(crate) version: String,
    /// Each before those that need it.
    pub(crate) list: Vec<Module>,
}

/// One module.
pub(crate) struct Module {
    /// With `_` for `-`, as the kernel has it.
    pub(crate) name: String,
    /// Below `/lib/modules/VERSION`.
    pub(crate) path: String,
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// Names of those that it needs directly.
    depends: Vec<String>,
    /// What else it may be asked for as.
    aliases: Vec<String>,
}

impl Modules {
    /// Reads the modules with these names, and what they need, from the one kernel below `root`.
    pub(crate) fn read(root: &Path, names: &[&str]) -> Result<Modules> {
        let all = root.join("lib/modules");
        let mut kernels = fs::read_dir(&all).with_context(|| all.display().to_string())?;
        let kernel = kernels.next().context("there is no kernel")??;
        let folder = kernel.path();
        let version = kernel.file_name().into_string().ok().context("a kernel with a strange name")?;
        if kernels.next().is_some() {
            bail!("there is more than one kernel in {}", all.display());
        }
        let mut files = BTreeMap::new();
        find(&folder.join("kernel"), &mut files)?;
        let mut modules = Modules { version, list: Vec::new() };
        let mut seen = BTreeSet::new();
        for name in names {
            modules.add(&normal(name), &folder, &files, &mut seen)?;
        }
        Ok(modules)
    }

    fn add(
        &mut self,
        name: &str,
        folder: &Path,
        files: &BTreeMap<String, PathBuf>,
        seen: &mut BTreeSet<String>,
    ) -> Result<()> {
        // Marked before its needs are looked at: a circle would end here, and not never.
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let file = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        let info = Info::of(&bytes).with_context(|| file.display().to_string())?;
        for needed in &info.depends {
            self.add(needed, folder, files, seen)?;
        }
        let path = file.strip_prefix(folder)?.to_str().context("a module with a strange name")?.to_owned();
        self.list.push(Module { name: name.to_owned(), path, bytes, depends: info.depends, aliases: info.aliases });
        Ok(())
    }

    /// `modules.dep`: a module's path, and the paths of all that it needs, the last to be loaded first.
    pub(crate) fn dependencies(&self) -> String {
        let mut text = String::new();
        for module in &self.list {
            let _ = write!(text, "{}:", module.path);
            let mut needed = BTreeSet::new();
            self.needs(module, &mut needed);
            for other in self.list.iter().rev().filter(|other| needed.contains(&other.name)) {
                let _ = write!(text, " {}", other.path);
            }
            text.push('\n');
        }
        text
    }

    /// `modules.alias`.
    pub(crate) fn aliases(&self) -> String {
        let lines = self
            .list
            .iter()
            .flat_map(|module| module.aliases.iter().map(move |alias| format!("alias {alias} {}\n", module.name)));
        lines.collect()
    }

    fn needs(&self, module: &Module, into: &mut BTreeSet<String>) {
        for name in &module.depends {
            if into.insert(name.clone()) {
                if let Some(module) = self.list.iter().find(|module| module.name == *name) {
                    self.needs(module, into);
                }
            }
        }
    }
}

/// What a module says about itself.
#[derive(PartialEq, Eq, Debug, Default)]
struct Info {
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Info {
    fn of(module: &[u8]) -> Result<Info> {
        let elf = Elf::of(module)?.context("a module that is no ELF file")?;
        Info::parse(elf.section(".modinfo")?.context("a module without information")?)
    }

    /// `key=value`, each with a zero behind it.
    fn parse(section: &[u8]) -> Result<Info> {
        let mut info = Info::default();
        for line in section.split(|byte| *byte == 0) {
            let line = std::str::from_utf8(line)?;
            match line.split_once('=') {
                Some(("depends", names)) => {
                    info.depends.extend(names.split(',').filter(|name| !name.is_empty()).map(normal));
                }
                Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
                _ => (),
            }
        }
        Ok(info)
    }
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// All modules below a folder, by name.
fn find(folder: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), into)?;
        } else if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko")) {
            into.insert(normal(name), entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str], aliases: &[&str]) -> Module {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (depends, aliases) = (texts(depends), texts(aliases));
        Module { name: name.into(), path: format!("kernel/{name}.ko"), bytes: Vec::new(), depends, aliases }
    }

    #[test]
    fn what_a_module_says_is_understood() {
        let section = b"license=GPL\0alias=crc32c\0depends=net-failover,failover\0\0name=virtio_net\0";
        let info = Info::parse(section).unwrap();
        assert_eq!(info.depends, ["net_failover", "failover"]);
        assert_eq!(info.aliases, ["crc32c"]);
        assert_eq!(Info::parse(b"depends=\0").unwrap(), Info::default());
    }

    #[test]
    fn what_is_needed_by_others_comes_last() {
        let list = vec![
            module("llc", &[], &[]),
            module("stp", &["llc"], &[]),
            module("bridge", &["stp", "llc"], &["rtnl-link-bridge"]),
        ];
        let modules = Modules { version: "6.1".into(), list };
        assert_eq!(
            modules.dependencies(),
            "kernel/llc.ko:\nkernel/stp.ko: kernel/llc.ko\nkernel/bridge.ko: kernel/stp.ko kernel/llc.ko\n"
        );
        assert_eq!(modules.aliases(), "alias rtnl-link-bridge bridge\n");
    }

    #[test]
    fn a_missing_module_is_an_error() {
        let root = std::env::temp_dir().join(format!("colo-testbed-modules-{}", std::process::id()));
        fs::create_dir_all(root.join("lib/modules/6.1/kernel")).unwrap();
        let error = Modules::read(&root, &["bridge"]).err().unwrap();
        assert_eq!(error.to_string(), "the kernel has no module bridge");
        fs::remove_dir_all(root).unwrap();
    }
}
