//! The demo's texts: four kinds of writing with human
//! sentiment ratings, each the data of one owner.
//!
//! Source: C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for
//! Sentiment Analysis of Social Media Text", ICWSM 2014. Rows are `id <tab> mean
//! rating <tab> text` with ratings from -4 to 4.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use tar::Archive;

use super::fetch::Pip;
use super::packages::VADER;
use super::stamp::Recipe;
use crate::paths::Paths;

const RECIPE: Recipe = Recipe { packages: &[VADER], revision: 1 };

/// Ratings nearer to zero than this are neither negative nor positive.
const LEAST_RATING: f64 = 0.5;

/// The domains, in the order in which the demo takes them, and their files.
pub(crate) const DOMAINS: [(&str, &str); 4] = [
    ("movies", "movieReviewSnippets_GroundTruth.txt"),
    ("products", "amazonReviewSnippets_GroundTruth.txt"),
    ("newspaper", "nytEditorialSnippets_GroundTruth.txt"),
    ("tweets", "tweets_GroundTruth.txt"),
];

/// Makes `.rondo/data/hutto/<domain>.tsv` (columns `text`, `label`) unless they are there.
pub(crate) fn setup(paths: &Paths) -> Result<()> {
    let target = paths.demo_data();
    if !RECIPE.is_done(&target) {
        println!("data: making {}", paths.show(&target));
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let pip = Pip::find()?;
        RECIPE.make(&target, |downloads, new| {
            let source = pip.fetch(&VADER, downloads)?;
            let inner = member(GzDecoder::new(File::open(&source)?), "hutto_ICWSM_2014.tar.gz")?;
            for (domain, file) in DOMAINS {
                let rows = member(GzDecoder::new(inner.as_slice()), file)?;
                let table = table(&String::from_utf8(rows).with_context(|| format!("{file} is not UTF-8"))?)
                    .with_context(|| file.to_owned())?;
                std::fs::write(new.join(domain).with_extension("tsv"), table)?;
            }
            Ok(())
        })?;
    }
    println!("data: {}", paths.show(&target));
    Ok(())
}

/// The bytes of the member of a tar archive that has this file name.
fn member(archive: impl Read, name: &str) -> Result<Vec<u8>> {
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.path()?.file_name() == Path::new(name).file_name() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    bail!("the source distribution of {} holds no {name}", VADER.name)
}

/// Rated rows as a tab-separated table with the columns `text` and
/// `label`; a quotation mark is an ordinary character.
fn table(rows: &str) -> Result<String> {
    let mut table = String::from("text\tlabel\n");
    for (number, row) in rows.lines().enumerate() {
        let mut fields = row.splitn(3, '\t');
        let (Some(_id), Some(rating), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
            bail!("line {}: expected id, rating and text, got {row:?}", number + 1);
        };
        let rating: f64 = rating.trim().parse().with_context(|| format!("line {}: rating {rating:?}", number + 1))?;
        let text = text.trim();
        if text.contains('\t') {
            bail!("line {}: a tab inside the text", number + 1);
        }
        if rating.abs() < LEAST_RATING || text.is_empty() {
            continue;
        }
        let label = if rating < 0.0 { "negative" } else { "positive" };
        table += &format!("{text}\t{label}\n");
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_become_labels_and_weak_ones_are_left_out() {
        let rows = "1\t-0.9\tno picture\r\n2\t0.49\tso so\r\n3\t0.5\t\"good\" he said\r\n4\t-0.5\t\r\n";
        let expected = "text\tlabel\nno picture\tnegative\n\"good\" he said\tpositive\n";
        assert_eq!(table(rows).unwrap(), expected);
    }

    #[test]
    fn a_broken_row_is_named() {
        let error = format!("{:#}", table("1\t0.9\tfine\n2\tgreat\n").unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_member_is_found_by_its_file_name() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_cksum();
        builder.append_data(&mut header, "some/folder/wanted.txt", &b"abc"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert_eq!(member(bytes.as_slice(), "wanted.txt").unwrap(), b"abc");
        assert!(member(bytes.as_slice(), "other.txt").is_err());
    }
}
