//! Text from the public-domain 8×8 bitmap font, enlarged by whole factors.

use font8x8::legacy::{BASIC_LEGACY, LATIN_LEGACY};

/// Side of a character's cell in pixels, before enlargement.
pub(super) const CELL: i64 = 8;

/// Rows of `character` from the top, the leftmost pixel in the lowest bit. Characters outside
/// ASCII and Latin-1 show as `?`.
pub(super) fn glyph(character: char) -> [u8; 8] {
    let code = character as usize;
    let known = match code {
        0x20..0x7F => Some(BASIC_LEGACY[code]),
        0xA0..=0xFF => Some(LATIN_LEGACY[code - 0xA0]),
        _ => None,
    };
    known.unwrap_or(BASIC_LEGACY['?' as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_upright_and_not_mirrored() {
        let picture: Vec<String> = glyph('F')
            .iter()
            .map(|row| {
                (0..CELL)
                    .map(|x| if row >> x & 1 == 1 { '#' } else { '.' })
                    .collect()
            })
            .collect();
        assert_eq!(
            picture,
            [
                "#######.", ".##...#.", ".##.#...", ".####...", ".##.#...", ".##.....", "####....",
                "........",
            ]
        );
    }

    #[test]
    fn unknown_characters_are_question_marks() {
        assert_eq!(glyph('猫'), glyph('?'));
        assert_eq!(glyph('\n'), glyph('?'));
        assert_ne!(glyph('é'), glyph('?'));
        assert_eq!(glyph(' '), [0; 8]);
    }
}
