//! The two text formats of the metrics page, and which of them a scraper gets.
//!
//! OpenMetrics 1.0 is written by the library. The older text format 0.0.4 of Prometheus is derived from it: the two differ in the names of the
//! comments, and in what the older one lacks. Read next: `metrics.rs`, which makes the page.

use std::fmt::Write as _;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus, for scrapers that do not ask for the newer one.
    Text,
}

impl Format {
    /// The format for a request with this `Accept` field. A scraper gets OpenMetrics if it names it and does not prefer the older format (RFC
    /// 9110 section 12.5.1; OpenMetrics 1.0, "Protocol Negotiation"). Without the field, and for `*/*`, it gets the older one, which
    /// all scrapers read: Prometheus's own client libraries do the same.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        let (mut open_metrics, mut text, mut any) = (0.0, None, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let quality: f32 = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
            match name.as_str() {
                "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                "text/plain" | "text/*" => text = Some(quality.max(text.unwrap_or(0.0))),
                "*/*" => any = quality,
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text.unwrap_or(any) { Format::OpenMetrics } else { Format::Text }
    }

    /// The `Content-Type` of a page in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A page of OpenMetrics in the older format. The samples stay as they are. There a counter is called as its samples are, with `_total`; an info metric
/// is a gauge that ends in `_info`; there are no units, and no mark at the end.
#[must_use]
pub fn text_of(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    // The help comes before the type, which decides on the name.
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some((name, help)) = help.split_once(' ')
                && name == family
            {
                let _ = writeln!(page, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(page, "# TYPE {family}{suffix} {kind}");
        } else if !line.starts_with('#') {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_open_metrics_if_it_asks_for_it_and_does_not_prefer_the_older_format() {
        for (accept, expected) in [
            // Prometheus 2.5 to 2.48, and 3.
            ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Format::OpenMetrics),
            // Prometheus with OpenMetrics turned off, curl, older scrapers.
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=nonsense", Format::Text),
            (",;,;q=,;;", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn in_the_older_format_counters_are_named_as_their_samples() {
        let open_metrics = "# HELP reads Calls of read.\n# TYPE reads counter\nreads_total{loop=\"0\"} 7\n\
            # HELP age_seconds Age.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\nage_seconds 0.5\n\
            # HELP build Version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
            # HELP lag_seconds Lag.\n# TYPE lag_seconds histogram\n# UNIT lag_seconds seconds\nlag_seconds_bucket{le=\"+Inf\"} 1\nlag_seconds_sum 1.0\nlag_seconds_count 1\n# EOF\n";
        let text = "# HELP reads_total Calls of read.\n# TYPE reads_total counter\nreads_total{loop=\"0\"} 7\n\
            # HELP age_seconds Age.\n# TYPE age_seconds gauge\nage_seconds 0.5\n\
            # HELP build_info Version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
            # HELP lag_seconds Lag.\n# TYPE lag_seconds histogram\nlag_seconds_bucket{le=\"+Inf\"} 1\nlag_seconds_sum 1.0\nlag_seconds_count 1\n";
        assert_eq!(text_of(open_metrics), text);
    }
}
