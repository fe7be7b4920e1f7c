//! With the feature `generate`: bindings from this machine's headers, by the same lists as `regenerate.sh`. Without: nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "generate")]
    generate::all();
}

#[cfg(feature = "generate")]
mod generate {
    use std::fs;
    use std::path::Path;

    pub(super) fn all() {
        println!("cargo::rerun-if-changed=bindings");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings");
        let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
        for entry in fs::read_dir(folder).expect("the folder of lists is there") {
            let path = entry.expect("the folder of lists can be read").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("lists have plain names");
            let list = fs::read_to_string(&path).expect("a list can be read");
            let bindings = one(&list).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            bindings.write_to_file(Path::new(&out).join(format!("{name}.rs"))).expect("OUT_DIR can be written");
        }
    }

    /// A list is lines of "verb argument".
    fn one(list: &str) -> Result<bindgen::Bindings, String> {
        let mut header = String::new();
        let mut builder = bindgen::builder()
            .dynamic_link_require_all(true)
            .generate_comments(false)
            .rust_edition(bindgen::RustEdition::Edition2024)
            .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?)
            .disable_header_comment()
            .raw_line("// Made by regenerate.sh: do not edit.");
        for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (verb, argument) = line.split_once(' ').ok_or_else(|| format!("no argument in \"{line}\""))?;
            builder = match verb {
                "header" => {
                    header += &format!("#include <{argument}>\n");
                    builder
                }
                "line" => {
                    header += &format!("{argument}\n");
                    builder
                }
                "library" => builder.dynamic_library_name(argument),
                "function" => builder.allowlist_function(argument),
                "type" => builder.allowlist_type(argument),
                "var" => builder.allowlist_var(argument),
                "block" => builder.blocklist_type(argument),
                "opaque" => builder.opaque_type(argument),
                "nodebug" => builder.no_debug(argument),
                _ => return Err(format!("what is \"{verb}\"?")),
            };
        }
        builder.header_contents("header.h", &header).generate().map_err(|error| error.to_string())
    }
}
