//! Why a method cannot be traced, in its author's terms.
//!
//! Burn refuses by panicking, deep inside itself. The frames between name the operation that the author
//! called and the function that called it, as far as the library has symbols.

use crate::MethodError;
use crate::guard::{PanicRecord, catch_with_frames};

/// Crates whose frames are not an author's.
const NOT_THE_AUTHORS: [&str; 9] = [
    "std::",
    "core::",
    "alloc::",
    "futures_lite::",
    "burn",
    "kd_plugin::",
    "kd_graph::",
    "rust_",
    "__rust",
];

/// What to do instead, by a word in the operation's name.
const INSTEAD: [(&str, &str); 8] = [
    (
        "one_hot",
        "compare the labels with `arange`: `labels.expand(..).equal(arange.expand(..)).float()`",
    ),
    (
        "nonzero",
        "keep all rows and give those that do not count the weight 0",
    ),
    (
        "argwhere",
        "keep all rows and give those that do not count the weight 0",
    ),
    (
        "mask_select",
        "keep all rows and give those that do not count the weight 0",
    ),
    (
        "BatchNorm",
        "use `module::batch_norm_train`, `Packed::instance_norm` or `Packed::group_norm`",
    ),
    ("inner", "use `detach()`"),
    ("without_autodiff", "use `detach()`"),
    ("seed", "use `inputs.noise(..)`"),
];

/// Runs a part of a trace. A refusal of Burn comes back as an error and leaves the instance usable.
pub(super) fn watched<T>(body: impl FnOnce() -> Result<T, MethodError>) -> Result<T, MethodError> {
    catch_with_frames(body).unwrap_or_else(|panic| Err(refusal(&panic)))
}

fn refusal(panic: &PanicRecord) -> MethodError {
    let frames = panic
        .frames
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let frames = Frames::read(&frames);
    let mut message = "the method cannot be traced into a program".to_owned();
    if let Some(operation) = &frames.operation {
        message += &format!(": `{operation}`");
    }
    if let Some(author) = &frames.author {
        message += &format!(", called in {author}");
    }
    message += &format!(": {} ({})", panic.message, panic.location);
    let reads = panic.message.contains("no concrete value")
        || panic.message.contains("no initialized value");
    let operation = frames.operation.as_deref().unwrap_or_default();
    let known = INSTEAD.iter().find(|(word, _)| {
        operation.contains(word) || frames.path.iter().any(|frame| frame.contains(word))
    });
    match known {
        Some((_, instead)) => message += &format!("; {instead}"),
        None if reads => {
            message += "; tensors have no values while a method is traced: mask instead of \
                        branching, and log with `Outputs::metric`";
        }
        None => {}
    }
    MethodError::unsupported(message)
}

/// What a printed backtrace says.
#[derive(Debug, Default)]
struct Frames {
    /// The last of Burn's functions before the author's: what was called.
    operation: Option<String>,
    /// The author's function, and where it stands if the library has line numbers.
    author: Option<String>,
    /// Burn's functions on the way.
    path: Vec<String>,
}

impl Frames {
    fn read(text: &str) -> Self {
        let mut frames = Frames::default();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            // `  12: name` and, with line numbers, `             at path:line:column` below.
            let Some((_, name)) = line.trim_start().split_once(": ") else {
                continue;
            };
            let place = lines
                .next_if(|next| next.trim_start().starts_with("at "))
                .map(|next| next.trim_start()["at ".len()..].to_owned());
            let bare = name.trim_start_matches(['<', '&']);
            if NOT_THE_AUTHORS
                .iter()
                .any(|prefix| bare.starts_with(prefix))
            {
                if bare.starts_with("burn") {
                    frames.path.push(short(name));
                }
                continue;
            }
            frames.author = Some(match place {
                Some(place) => format!("`{name}` ({place})"),
                None => format!("`{name}`"),
            });
            break;
        }
        if frames.author.is_some() {
            frames.operation = frames.path.last().cloned();
        }
        frames
    }
}

/// The last words of a path: `Tensor<_,_>::into_scalar` of `burn_tensor::…::Tensor<_,_>::into_scalar`.
fn short(name: &str) -> String {
    let mut depth = 0usize;
    let mut starts = Vec::new();
    let bytes = name.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if at > 0 && bytes[at - 1] != b'-' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && at > 0 && bytes[at - 1] == b':' => starts.push(at + 1),
            _ => {}
        }
    }
    let from = starts.iter().rev().nth(1).copied().unwrap_or_default();
    name[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_name_operation_and_author() {
        let text = "   0: std::backtrace::Backtrace::force_capture\n\
                    \x20  1: burn_router::tensor::read\n\
                    \x20  2: burn_tensor::tensor::api::base::Tensor<_,K>::into_scalar\n\
                    \x20  3: kd_mine::loss::weight\n\
                    \x20            at ./src/loss.rs:12:9\n\
                    \x20  4: kd_plugin::method::trace::step\n";
        let frames = Frames::read(text);
        assert_eq!(
            frames.operation.as_deref(),
            Some("Tensor<_,K>::into_scalar")
        );
        let author = frames.author.unwrap();
        assert_eq!(author, "`kd_mine::loss::weight` (./src/loss.rs:12:9)");
    }

    #[test]
    fn without_symbols_there_is_nothing_to_name() {
        let frames = Frames::read("   0: <unknown>\n   1: <unknown>\n");
        assert!(frames.operation.is_none());
    }
}
