use super::RestoreImageError;
use super::taken::ensure_free;
use crate::domain::Control;
use crate::ids::DomId;
use crate::restore::{PlainRestore, Progress, RestoreCallbacks, Restorer};
use crate::stream::image::{ImageEvent, ImageLimits, ImagePart, ImageReader, ImageSource};
use crate::stream::libxl::{LibxlHeader, LibxlRecord, MAX_LIBXL_BODY_BYTES};
use crate::stream::xl::XlHeader;
use crate::stream::{Headers, StreamUse};
use crate::xen::Xen;
use crate::xen::domain::{Incoming, XenDomain};
use crate::xen::toolstack::{DomainConfig, DomainUuid, RestoreGuard, RestoreOptions, Xl, XlRestore};
use rustix::io::Errno;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// The most that an image may have for the device model: one record of the longest, and the small ones.
const MAX_TAIL_BYTES: usize = MAX_LIBXL_BODY_BYTES + (1 << 20);

/// How an image is restored.
#[derive(Clone, Debug, Default)]
pub struct RestoreImageOptions {
    /// Leave the guest paused.
    pub paused: bool,
    /// Another name than the one in the image.
    pub name: Option<String>,
    /// The program that runs [`HelperRole`](crate::xen::toolstack::HelperRole); `None` for this one.
    pub helper: Option<PathBuf>,
}

/// A domain that has been restored.
pub struct Restored {
    /// Its number.
    pub domid: DomId,
    /// Its name.
    pub name: String,
    /// The handles by which it was restored, and their mappings of its memory.
    pub domain: XenDomain,
}

/// Restores a domain from an image as `xl` has them: `xl` makes the domain and its devices, and what is in the guest goes through
/// `callbacks`, which must leave it suspended: the toolstack lets it run. `progress` is told how far the image is read, in bytes,
/// and asked whether to go on. The guard, if there is one, sees to it that nothing is left of the domain when this process is killed.
///
/// # Errors
/// [`RestoreImageError`]; nothing is left of the domain.
pub fn restore_image_with(
    xen: Xen,
    xl: &Xl,
    source: impl ImageSource,
    options: &RestoreImageOptions,
    guard: Option<RestoreGuard>,
    callbacks: &mut dyn RestoreCallbacks,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Restored, RestoreImageError> {
    let mut reader = ImageReader::new(source, ImageLimits::default());
    let begin = Begin::read(&mut reader, options.name.as_deref())?;
    ensure_free(xen, &begin.name, begin.uuid)?;
    let toolstack = RestoreOptions {
        paused: options.paused,
        helper: options.helper.as_deref(),
        ..RestoreOptions::new(&begin.head, &begin.name, begin.uuid)
    };
    let mut toolstack = XlRestore::start(xl, &toolstack, guard)?;
    let domid = toolstack.request().domid;
    // It is dropped before the toolstack on every way out: while it maps the domain's memory, the domain cannot go.
    let restored = fill(xen, &mut toolstack, &mut reader, &begin.headers, callbacks, progress);
    let (domain, tail) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // The first error is the one to tell; what is left is told in the log.
            let _ = toolstack.abort(Errno::IO).inspect_err(|error| tracing::error!("{error}"));
            return Err(error);
        }
    };
    let mut domain = Some(domain);
    toolstack.finish(&tail, || domain = None)?;
    let domain = domain.ok_or(RestoreImageError::NoDomain)?;
    Ok(Restored { domid, name: begin.name, domain })
}

/// As [`restore_image_with`], straight into the domain.
///
/// # Errors
/// As there.
pub fn restore_image(
    xen: Xen,
    xl: &Xl,
    source: impl ImageSource,
    options: &RestoreImageOptions,
    guard: Option<RestoreGuard>,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Restored, RestoreImageError> {
    let mut callbacks = PlainRestore::paused();
    restore_image_with(xen, xl, source, options, guard, &mut callbacks, progress)
}

/// The beginning of an image: all that the toolstack needs before the domain's memory.
struct Begin {
    head: Vec<u8>,
    name: String,
    uuid: DomainUuid,
    headers: Headers,
}

impl Begin {
    fn read<R: ImageSource>(reader: &mut ImageReader<R>, name: Option<&str>) -> Result<Begin, RestoreImageError> {
        let mut config = None;
        loop {
            let item = reader.next_item()?.ok_or(RestoreImageError::NoDomain)?;
            match item.event {
                ImageEvent::XlHeader(header) => config = Some(config_of(&header, name)?),
                ImageEvent::LibxcHeaders(headers) => {
                    let config = config.ok_or(RestoreImageError::NoConfig)?;
                    let head = head_of(&config)?;
                    return Ok(Begin { head, name: config.name().into(), uuid: config.uuid(), headers });
                }
                ImageEvent::LibxlHeader(_) | ImageEvent::Libxl(_) | ImageEvent::Libxc { .. } => {}
            }
        }
    }
}

/// What the toolstack reads of an image before the domain's memory.
pub(in crate::xen) fn head_of(config: &DomainConfig) -> Result<Vec<u8>, RestoreImageError> {
    let mut head = Vec::new();
    XlHeader::new(&config.to_json()).encode(&mut head)?;
    LibxlHeader { legacy: false }.encode(&mut head);
    LibxlRecord::LibxcContext.encode(&mut head)?;
    Ok(head)
}

/// The domain's configuration, with its new name if it gets one.
fn config_of(header: &XlHeader<'_>, new_name: Option<&str>) -> Result<DomainConfig, RestoreImageError> {
    let json = header.config.filter(|_| header.is_json).ok_or(RestoreImageError::NoConfig)?;
    let mut config = DomainConfig::parse(json)?;
    if let Some(name) = new_name {
        config.set_name(name);
    }
    Ok(config)
}

/// Puts the guest into the domain. Returns what the toolstack must read after that, too.
fn fill<R: ImageSource>(
    xen: Xen,
    toolstack: &mut XlRestore,
    reader: &mut ImageReader<R>,
    headers: &Headers,
    callbacks: &mut dyn RestoreCallbacks,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(XenDomain, Vec<u8>), RestoreImageError> {
    let request = toolstack.request();
    let mut domain = XenDomain::receive(xen, request.domid, Incoming::new(request))?;
    let mut restorer = Restorer::new(domain.spec(), StreamUse::Plain);
    restorer.handle_headers(headers, &mut domain, callbacks)?;
    let mut tail = Tail::default();
    while let Some(part) = reader.next_part()? {
        let end = match &part {
            ImagePart::Item(item) => item.offset + item.bytes as u64,
            ImagePart::Pages(part) => part.offset + part.bytes as u64,
        };
        if progress(end).is_break() {
            return Err(RestoreImageError::Interrupted);
        }
        let item = match part {
            ImagePart::Item(item) => item,
            ImagePart::Pages(mut part) => {
                restorer.handle_pages(&part.list, &mut part.source, &mut domain, callbacks)?;
                continue;
            }
        };
        match item.event {
            ImageEvent::Libxc { record, .. } => {
                let staged = restorer.handle_record(&record, &mut domain, callbacks)?;
                if let Some(missing) = domain.take_missing_policies() {
                    let told = toolstack.channel().static_data_done(missing);
                    told.map_err(|error| toolstack.channel_error(error))?;
                }
                if staged == Progress::Staged {
                    restorer.apply(&mut domain, callbacks)?;
                }
            }
            ImageEvent::Libxl(record) => tail.add(&record)?,
            ImageEvent::XlHeader(_) | ImageEvent::LibxlHeader(_) | ImageEvent::LibxcHeaders(_) => {}
        }
    }
    let (store_gfn, console_gfn) = domain.rings().ok_or(RestoreImageError::NoDomain)?;
    let told = toolstack.channel().results(store_gfn, console_gfn);
    told.map_err(|error| toolstack.channel_error(error))?;
    Ok((domain, tail.bytes))
}

/// What libxl reads behind the guest.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    fn add(&mut self, record: &LibxlRecord<'_>) -> Result<(), RestoreImageError> {
        record.encode(&mut self.bytes)?;
        if self.bytes.len() > MAX_TAIL_BYTES {
            return Err(RestoreImageError::TooMuch { limit_bytes: MAX_TAIL_BYTES });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::libxl::Emulator;

    #[test]
    fn a_configuration_keeps_all_but_its_name() {
        let json = concat!(
            r#"{"b_info":{"max_memkb":8192,"max_vcpus":1,"target_memkb":8192},"c_info":{"name":"web","type":"pvh","#,
            r#""uuid":"c68e58a4-e8f9-11f1-9b12-2bf4439fb59e"},"on_reboot":"restart","unknown":[-1,1.5,null]}"#
        );
        let config = |name| config_of(&XlHeader::new(json.as_bytes()), name).unwrap().to_json();
        assert_eq!(config(None), json.as_bytes());
        assert_eq!(config(Some("twin")), json.replace("web", "twin").as_bytes());
    }

    #[test]
    fn a_configuration_that_is_none_of_libxls_is_refused_in_one_line() {
        let refused = |json: &[u8]| config_of(&XlHeader::new(json), Some("twin")).err().unwrap().to_string();
        assert_eq!(refused(b"{}"), "the domain's configuration has no valid type");
        let no_json = refused(b"{\n\n");
        assert!(
            no_json.starts_with("the domain's configuration is no JSON: ") && no_json.lines().count() == 1,
            "{no_json}"
        );
    }

    #[test]
    fn an_image_cannot_fill_the_memory_with_device_models() {
        let context = vec![0; MAX_LIBXL_BODY_BYTES / 2];
        let mut tail = Tail::default();
        tail.add(&LibxlRecord::EmulatorContext(Emulator::QEMU, &context)).unwrap();
        tail.add(&LibxlRecord::End).unwrap();
        tail.add(&LibxlRecord::EmulatorContext(Emulator::QEMU, &context)).unwrap();
        let more = tail.add(&LibxlRecord::EmulatorContext(Emulator::QEMU, &context));
        assert!(matches!(more, Err(RestoreImageError::TooMuch { .. })));
    }
}
