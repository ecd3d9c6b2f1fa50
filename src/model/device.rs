//! Where a model runs.

use crate::error::{Error, ErrorKind, Result};

/// A device that the `candle` backend can run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number from 0.
    Cuda(usize),
    /// An Apple GPU.
    Metal,
}

impl Device {
    /// Reads `auto`, `cpu`, `cuda`, `cuda:N` or `metal`. `auto` is the CPU: a GPU is used only when asked for.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "auto" | "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => match text.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => Ok(Self::Cuda(number)),
                None => Err(Error::invalid(
                    "device",
                    format!("There is no device {text:?}."),
                    "Use \"auto\", \"cpu\", \"cuda\", \"cuda:0\" or \"metal\".",
                )),
            },
        }
    }

    /// The name that [`Device::parse`] reads.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda(number) => format!("cuda:{number}"),
            Self::Metal => "metal".to_owned(),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when it is absent or this build was made without it.
    pub(crate) fn open(self) -> Result<candle_core::Device> {
        let (opened, feature) = match self {
            Self::Cpu => return Ok(candle_core::Device::Cpu),
            Self::Cuda(number) => (candle_core::Device::new_cuda(number), "cuda"),
            Self::Metal => (candle_core::Device::new_metal(0), "metal"),
        };
        opened.map_err(|error| {
            let (message, hint) = match (feature, cfg!(feature = "cuda"), cfg!(feature = "metal")) {
                ("cuda", true, _) | ("metal", _, true) => (
                    format!("The device {} did not open: {error}.", self.name()),
                    "Check the driver, or use device=\"cpu\".",
                ),
                _ => (
                    format!("This build of phicandle has no {feature} support."),
                    "Use device=\"cpu\", or build from source with the Cargo feature `cuda` or `metal`.",
                ),
            };
            Error::new(ErrorKind::Device, message, hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
            assert_eq!(Device::parse(&device.name()).unwrap(), device);
        }
        assert!(Device::parse("tpu").is_err());
        assert!(Device::parse("cuda:x").is_err());
    }
}
