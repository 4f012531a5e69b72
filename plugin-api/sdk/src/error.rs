//! Why a method refuses to go on.

use std::fmt;

use kd_abi::{
    KD_E_CANCELLED, KD_E_CONFIG, KD_E_DEVICE, KD_E_DTYPE, KD_E_INTERNAL, KD_E_INVALID_ARG,
    KD_E_NUMERIC, KD_E_SHAPE, KD_E_STATE, KD_E_UNSUPPORTED, KdStatus,
};

/// A status code and the sentence that explains it to the user of the host.
///
/// Say what is wrong, what was expected and what to do. Any `std::error::Error` turns into one
/// with `?` (status [`KD_E_INTERNAL`]); for that reason this type is not itself an `Error`.
pub struct MethodError {
    status: KdStatus,
    message: String,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $status:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(message: impl Into<String>) -> Self {
            MethodError { status: $status, message: message.into() }
        }
    )*};
}

impl MethodError {
    constructors! {
        /// A value of the configuration makes no sense.
        config => KD_E_CONFIG;
        /// A tensor has a shape that the method cannot use.
        shape => KD_E_SHAPE;
        /// A tensor has an element type that the method cannot use.
        dtype => KD_E_DTYPE;
        /// A tensor lies where the method cannot reach it.
        device => KD_E_DEVICE;
        /// Legal, but this method cannot do it.
        unsupported => KD_E_UNSUPPORTED;
        /// A value is not finite, or a computation did not converge.
        numeric => KD_E_NUMERIC;
        /// The host broke the contract of the call.
        invalid_argument => KD_E_INVALID_ARG;
        /// The host called out of order.
        state => KD_E_STATE;
        /// The host asked to stop and the method did.
        cancelled => KD_E_CANCELLED;
        /// A fault of the method itself.
        internal => KD_E_INTERNAL;
    }

    /// The code that the host will see.
    #[must_use]
    pub fn status(&self) -> KdStatus {
        self.status
    }

    /// The sentence that the host will print.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts `place` in front of the message.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        MethodError {
            message: format!("{place}: {}", self.message),
            ..self
        }
    }
}

impl<E: std::error::Error> From<E> for MethodError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        MethodError::internal(message)
    }
}

impl fmt::Debug for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.status, self.message)
    }
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_causes_becomes_the_message() {
        let parse = "x".parse::<u32>().unwrap_err();
        let error = MethodError::from(std::io::Error::other(parse)).at("`width`");
        assert_eq!(error.status(), KD_E_INTERNAL);
        assert!(
            error.message().starts_with("`width`: invalid digit"),
            "{error}"
        );
    }
}
