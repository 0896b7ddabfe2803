//! Which device the trainer computes on.
//!
//! libtorch registers its CUDA part when `libtorch_cuda.so` is loaded. The binary does not link it,
//! so that one build serves machines with and without a GPU; it is loaded here, the first time
//! somebody asks for a GPU.

use std::str::FromStr;
use std::sync::OnceLock;

use tch::Cuda;
pub use tch::Device;

/// A device as the configuration names it: `cpu`, `cuda` (= `cuda:0`), `cuda:N` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU of this index; it is an error when it is not there.
    Cuda(usize),
    /// The first GPU when there is one, else the processor.
    Auto,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not a device's name.
    #[error("{device:?} is not a device; say \"cpu\", \"cuda:0\" or \"auto\"")]
    Unknown {
        /// As given.
        device: String,
    },
    /// libtorch was built or unpacked without its CUDA part.
    #[error(
        "{device:?} needs libtorch_cuda.so, which could not be loaded ({problem}); install PyTorch 2.11 with CUDA and build with LIBTORCH pointing at it, or say \"cpu\""
    )]
    NoCuda {
        /// As given.
        device: String,
        /// What the loader said.
        problem: String,
    },
    /// CUDA is there, the GPU is not.
    #[error(
        "{device:?} is not there: CUDA sees {found} GPU(s); check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES"
    )]
    NoGpu {
        /// As given.
        device: String,
        /// GPUs that CUDA sees.
        found: usize,
    },
}

impl DeviceError {
    /// The device as the configuration named it.
    pub fn device(&self) -> &str {
        match self {
            Self::Unknown { device } | Self::NoCuda { device, .. } | Self::NoGpu { device, .. } => device,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown { device: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl DeviceChoice {
    /// The libtorch device, once it is known to be usable.
    ///
    /// # Errors
    /// A GPU was asked for that is not there.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(if load_cuda().is_ok() && Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu }),
            Self::Cuda(index) => {
                load_cuda().map_err(|problem| DeviceError::NoCuda { device: self.to_string(), problem })?;
                let found = usize::try_from(Cuda::device_count()).unwrap_or(0);
                if index < found {
                    Ok(Device::Cuda(index))
                } else {
                    Err(DeviceError::NoGpu { device: self.to_string(), found })
                }
            }
        }
    }
}

/// Loads libtorch's CUDA part once per process; the loader looks along the binary's run path.
fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(open_cuda_library).clone()
}

#[cfg(target_os = "linux")]
fn open_cuda_library() -> Result<(), String> {
    use std::ffi::{CStr, c_char, c_int, c_void};

    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *mut c_char;
    }
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;

    // SAFETY: `dlopen` gets a NUL-terminated name. The library's initialisers are libtorch's own,
    // made to run when it is loaded late. The handle is never closed. `dlerror` returns NULL or a
    // NUL-terminated string that stays valid until the next dl* call of this thread; it is copied
    // at once.
    unsafe {
        if dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL).is_null() {
            let message = dlerror();
            return Err(if message.is_null() {
                "the loader gave no reason".to_owned()
            } else {
                CStr::from_ptr(message).to_string_lossy().into_owned()
            });
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn open_cuda_library() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("auto", DeviceChoice::Auto),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.to_string().contains("cuda:0"), "{error}");
        }
    }

    #[test]
    fn a_gpu_that_cannot_exist_is_a_typed_error_and_auto_finds_something() {
        let error = DeviceChoice::Cuda(4096).open().unwrap_err();
        assert!(matches!(error, DeviceError::NoCuda { .. } | DeviceError::NoGpu { .. }), "{error}");
        assert_eq!(error.device(), "cuda:4096");
        DeviceChoice::Auto.open().unwrap();
    }
}
