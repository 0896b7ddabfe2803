//! "Did you mean": the nearest known word to one that is not known.

/// The candidate most like `word`, if any is like it at all; another case counts as no difference.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_likest_word_is_found_and_nothing_is_forced() {
        assert_eq!(nearest("fed-bs", ["fedit", "fed-sb", "flora"]), Some("fed-sb"));
        assert_eq!(nearest("lora_a", ["lora_A", "lora_B"]), Some("lora_A"));
        assert_eq!(nearest("zzz", ["fedit", "flora"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
