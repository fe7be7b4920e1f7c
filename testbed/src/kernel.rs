//! Linux's own image within a bzImage (`Documentation/arch/x86/boot.rst`): Xen's domain builder reads the compressed one too, but
//! takes seconds for it, each time.

use anyhow::{Context, Result, bail};

/// Where the header's fields lie.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// The compressed kernel, as xz can unpack it.
pub(crate) fn xz_payload(image: &[u8]) -> Result<&[u8]> {
    let number = |at: usize| {
        let bytes = image.get(at..).and_then(|rest| rest.first_chunk()).context("a kernel that is cut short")?;
        anyhow::Ok(u32::from_le_bytes(*bytes) as usize)
    };
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        bail!("this is no bzImage");
    }
    // 0 stands for 4, in memory of boot sectors.
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(PAYLOAD_OFFSET)?;
    // After the payload comes the size of what it unpacks to; xz would take that for damage.
    let end = start + number(PAYLOAD_LENGTH)?.checked_sub(4).context("a kernel without content")?;
    let payload = image.get(start..end).context("a kernel that is cut short")?;
    if !payload.starts_with(XZ_MAGIC) {
        bail!("the kernel is not compressed by xz");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 0x10;
        image[PAYLOAD_LENGTH] = 12;
        image.extend_from_slice(&[9; 0x10]);
        image.extend_from_slice(b"\xfd7zXZ\0!!\x01\x02\x03\x04behind");
        image
    }

    #[test]
    fn the_payload_is_found() {
        assert_eq!(xz_payload(&image()).unwrap(), b"\xfd7zXZ\0!!");
    }

    #[test]
    fn what_is_no_such_kernel_is_an_error() {
        let mut wrong = image();
        wrong[0x410] = 0;
        assert!(xz_payload(&wrong).unwrap_err().to_string().contains("xz"));
        let mut wrong = image();
        wrong[PAYLOAD_LENGTH + 1] = 1;
        assert!(xz_payload(&wrong).unwrap_err().to_string().contains("cut short"));
        let mut wrong = image();
        wrong[PAYLOAD_LENGTH] = 3;
        assert!(xz_payload(&wrong).is_err());
        for length in 0..image().len() - 10 {
            assert!(xz_payload(&image()[..length]).is_err(), "{length}");
        }
    }
}
