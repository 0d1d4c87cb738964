//! Which part of a file a request asks for, and whether it asks for it at all: conditional requests (RFC 9110 section 13) and ranges (section 14).
//!
//! Evaluated in the order of RFC 9110 section 13.2.2: If-Match, else If-Unmodified-Since; If-None-Match, else If-Modified-Since; then Range, if
//! If-Range allows it. Read next: `files.rs`.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_range_header::{EndPosition, StartPosition, parse_range_header};

use crate::http::{Method, Request, http_date, parse_http_date};

/// The fields of a request that matter, taken out of it: the file is opened on another thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// All lines of the field, joined.
    if_match: Option<String>,
    if_unmodified_since: Option<SystemTime>,
    /// All lines of the field, joined.
    if_none_match: Option<String>,
    if_modified_since: Option<SystemTime>,
    if_range: Option<String>,
    /// None for HEAD: a range is defined for GET only (RFC 9110 section 14.2).
    range: Option<String>,
}

/// What identifies the content of a file: sent with it, and compared with what the client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// With its quotes, and `W/` if it is weak.
    pub(super) etag: String,
    modified: SystemTime,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// 200.
    Whole,
    /// 206, with these bytes.
    Part(Range<u64>),
    /// 412: the client asks for a part of a file that has changed, or that was never so.
    Changed,
    /// 304: the client has it.
    NotModified,
    /// 416: the range begins behind the end.
    NotSatisfiable,
}

impl Conditions {
    pub(super) fn of(request: &Request<'_>) -> Conditions {
        // A field that may be a list, on any number of lines. A value that is not text is ignored.
        let joined = |name: &str| {
            let lines = request.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name));
            let values: Vec<&str> = lines.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        Conditions {
            if_match: joined("If-Match"),
            if_unmodified_since: request.header_text("If-Unmodified-Since").and_then(parse_http_date),
            if_none_match: joined("If-None-Match"),
            if_modified_since: request.header_text("If-Modified-Since").and_then(parse_http_date),
            if_range: request.header_text("If-Range").map(str::to_owned),
            range: joined("Range").filter(|_| request.method == Method::Get),
        }
    }

    /// Evaluates them for a file of this length.
    pub(super) fn select(&self, validators: &Validators, length_bytes: u64) -> Selected {
        let is_as_required = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => validators.match_any(tags, Comparison::Strong),
            (None, Some(since)) => validators.modified <= since,
            (None, None) => true,
        };
        if !is_as_required {
            return Selected::Changed;
        }
        let is_unchanged = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => validators.match_any(tags, Comparison::Weak),
            (None, Some(since)) => validators.modified <= since,
            (None, None) => false,
        };
        if is_unchanged {
            return Selected::NotModified;
        }
        match &self.range {
            Some(range) if self.if_range.as_ref().is_none_or(|text| validators.are_exactly(text)) => select_range(range, length_bytes),
            _ => Selected::Whole,
        }
    }
}

impl Validators {
    /// Of a file with this time of modification and this length, at the time `now`. As nginx and Apache do, from the time and the length. A file that
    /// was modified within the last second may be modified again without a difference in either (the kernel's time stamps have the resolution
    /// of its tick), so its tag is weak (RFC 9110 section 8.8.1): it does not vouch for a range.
    pub(super) fn new(modified: SystemTime, length_bytes: u64, now: SystemTime) -> Validators {
        let since_1970 = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_strong = now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1));
        let weak = if is_strong { "" } else { "W/" };
        let etag = format!("{weak}\"{:x}.{:x}-{length_bytes:x}\"", since_1970.as_secs(), since_1970.subsec_nanos());
        // A date says whole seconds, and none after the Date of the response (RFC 9110 section 8.8.2.1).
        Validators {
            etag,
            modified: UNIX_EPOCH + Duration::from_secs(modified.min(now).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
        }
    }

    /// The value of Last-Modified.
    pub(super) fn last_modified(&self) -> String {
        http_date(self.modified)
    }

    /// Whether a list of If-Match (RFC 9110 section 13.1.1) or of If-None-Match (section 13.1.2) has this tag.
    fn match_any(&self, tags: &str, comparison: Comparison) -> bool {
        let is_equal = |tag: &str| match comparison {
            Comparison::Strong => !self.etag.starts_with("W/") && tag == self.etag,
            Comparison::Weak => opaque(tag) == opaque(&self.etag),
        };
        // The tags of `Validators::new` have no comma in them.
        tags.trim() == "*" || tags.split(',').any(|tag| is_equal(tag.trim()))
    }

    /// Whether the value of If-Range says that the client has a part of just this content: the same strong tag, or the same date if the tag is
    /// strong (RFC 9110 sections 13.1.5 and 8.8.2.2).
    fn are_exactly(&self, text: &str) -> bool {
        !self.etag.starts_with("W/") && (text == self.etag || parse_http_date(text) == Some(self.modified))
    }
}

/// How two tags are compared: RFC 9110 section 8.8.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Neither may be weak.
    Strong,
    /// `W/` does not count.
    Weak,
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// One range of bytes. What is malformed, in another unit or several ranges is ignored, and the whole file is sent (RFC 9110 section 14.2 allows it):
/// downloads that are resumed and players that seek ask for one range, and many small ranges of one file cost a server more than the file
/// (CVE-2011-3192).
fn select_range(text: &str, length_bytes: u64) -> Selected {
    let Ok(parsed) = parse_range_header(text) else { return Selected::Whole };
    // The library's `validate` is not used: it rejects a suffix that is longer than the file, which RFC 9110 section 14.1.2 makes the whole file.
    let [range] = &parsed.ranges[..] else { return Selected::Whole };
    let range = match (range.start, range.end) {
        (StartPosition::FromLast(suffix_bytes), _) => length_bytes.saturating_sub(suffix_bytes)..length_bytes,
        (StartPosition::Index(first), EndPosition::LastByte) => first..length_bytes,
        (StartPosition::Index(first), EndPosition::Index(last)) if last < first => return Selected::Whole, // Malformed: section 14.1.1.
        (StartPosition::Index(first), EndPosition::Index(last)) => first..length_bytes.min(last.saturating_add(1)),
    };
    if range.is_empty() { Selected::NotSatisfiable } else { Selected::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: Duration = Duration::from_millis(784_111_777_250);

    fn validators(age: Duration) -> Validators {
        Validators::new(UNIX_EPOCH + MODIFIED, 100, UNIX_EPOCH + MODIFIED + age)
    }

    fn old() -> Validators {
        validators(Duration::from_secs(1))
    }

    #[test]
    fn one_range_is_selected_and_all_else_is_the_whole_file() {
        use Selected::{NotSatisfiable, Part, Whole};
        for (text, selected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=10-19", Part(10..20)),
            ("bytes=10-", Part(10..100)),
            ("bytes=-10", Part(90..100)),
            ("bytes=-1000", Part(0..100)),
            ("bytes=99-1000", Part(99..100)),
            ("bytes=0-18446744073709551615", Part(0..100)),
            ("bytes=100-", NotSatisfiable),
            ("bytes=100-200", NotSatisfiable),
            ("bytes=0-0,5-6", Whole),
            ("bytes=9-1", Whole),
            ("bytes=-0", Whole),
            ("bytes=", Whole),
            ("bytes=a-b", Whole),
            ("bytes=18446744073709551616-", Whole),
            ("lines=0-1", Whole),
            ("0-1", Whole),
        ] {
            assert_eq!(select_range(text, 100), selected, "{text}");
        }
        for text in ["bytes=0-0", "bytes=0-", "bytes=-1"] {
            assert_eq!(select_range(text, 0), NotSatisfiable, "{text} of an empty file");
        }
    }

    #[test]
    fn if_match_compares_strongly_and_comes_before_all_others() {
        let (strong, weak) = (old(), validators(Duration::from_millis(999)));
        let part = Selected::Part(0..1);
        for (of, tags, selected) in [
            (&strong, strong.etag.clone(), part.clone()),
            (&strong, format!("\"x\", {}", strong.etag), part.clone()),
            (&strong, "*".to_owned(), part),
            (&strong, "\"x\"".to_owned(), Selected::Changed),
            (&strong, format!("W/{}", strong.etag), Selected::Changed),
            (&weak, weak.etag.clone(), Selected::Changed),
        ] {
            // Neither the date nor the tag that the client has is looked at, where If-Match decides.
            let conditions = Conditions {
                if_match: Some(tags.clone()),
                if_unmodified_since: Some(UNIX_EPOCH),
                range: Some("bytes=0-0".to_owned()),
                ..Conditions::default()
            };
            assert_eq!(conditions.select(of, 100), selected, "{tags}");
        }
        let both = Conditions { if_match: Some("\"x\"".to_owned()), if_none_match: Some("*".to_owned()), ..Conditions::default() };
        assert_eq!(both.select(&strong, 100), Selected::Changed);
        for (seconds, selected) in [(776, Selected::Changed), (777, Selected::Whole), (778, Selected::Whole)] {
            let since = Some(UNIX_EPOCH + Duration::from_secs(784_111_000 + seconds));
            let conditions = Conditions { if_unmodified_since: since, ..Conditions::default() };
            assert_eq!(conditions.select(&strong, 100), selected, "{seconds}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly_and_comes_before_if_modified_since() {
        let tag = old().etag;
        let later = Some(UNIX_EPOCH + MODIFIED + Duration::from_secs(5));
        for (tags, selected) in [
            (tag.clone(), Selected::NotModified),
            (format!("W/{tag}"), Selected::NotModified),
            (format!("\"x\" , {tag}"), Selected::NotModified),
            ("*".to_owned(), Selected::NotModified),
            ("\"x\"".to_owned(), Selected::Whole),
            (tag.trim_matches('"').to_owned(), Selected::Whole),
        ] {
            let conditions = Conditions { if_none_match: Some(tags.clone()), if_modified_since: later, ..Conditions::default() };
            assert_eq!(conditions.select(&old(), 100), selected, "{tags}");
        }
    }

    #[test]
    fn if_modified_since_compares_whole_seconds() {
        for (seconds, selected) in [(776, Selected::Whole), (777, Selected::NotModified), (778, Selected::NotModified)] {
            let since = Some(UNIX_EPOCH + Duration::from_secs(784_111_000 + seconds));
            let conditions = Conditions { if_modified_since: since, ..Conditions::default() };
            assert_eq!(conditions.select(&old(), 100), selected, "{seconds}");
        }
    }

    #[test]
    fn if_range_needs_a_strong_validator_that_is_equal() {
        let (strong, weak) = (old(), validators(Duration::from_millis(999)));
        assert!(weak.etag.starts_with("W/") && !strong.etag.starts_with("W/"));
        let part = Selected::Part(0..1);
        for (of, text, selected) in [
            (&strong, strong.etag.clone(), part.clone()),
            (&strong, strong.last_modified(), part),
            (&strong, "\"x\"".to_owned(), Selected::Whole),
            (&strong, format!("W/{}", strong.etag), Selected::Whole),
            (&strong, "Sun, 06 Nov 1994 08:49:38 GMT".to_owned(), Selected::Whole),
            (&weak, weak.etag.clone(), Selected::Whole),
            (&weak, weak.last_modified(), Selected::Whole),
        ] {
            let conditions = Conditions { range: Some("bytes=0-0".to_owned()), if_range: Some(text.clone()), ..Conditions::default() };
            assert_eq!(conditions.select(of, 100), selected, "{text}");
        }
    }

    #[test]
    fn the_tag_differs_with_time_and_length_and_no_clock_makes_it_panic() {
        let now = UNIX_EPOCH + 2 * MODIFIED;
        let tags: Vec<String> = [(MODIFIED, 100), (MODIFIED, 101), (MODIFIED + Duration::from_nanos(1), 100)]
            .map(|(modified, length)| Validators::new(UNIX_EPOCH + modified, length, now).etag)
            .into();
        assert!(tags[0] != tags[1] && tags[0] != tags[2], "{tags:?}");
        let future = Validators::new(now + MODIFIED, 1, now);
        assert_eq!(future.last_modified(), http_date(now), "not after Date");
        assert_eq!(Validators::new(UNIX_EPOCH - MODIFIED, 1, now).last_modified(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
