//! `QueryPerf` and `QueryPerfProviderSummary`.

use std::fmt::Write as _;

use crate::model::ids::MoRef;
use crate::soap::envelope::Object;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::methods::SMALL_REPLY_BYTES;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::units::Stamp;

/// The metricId elements of a query, written once and used for every entity of a kind: they are nine tenths of a
/// request.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricIds(String);

impl MetricIds {
    /// From pairs of counter id and `true` for all instances, `false` for the aggregate only.
    pub(crate) fn new(series: impl IntoIterator<Item = (i32, bool)>) -> Self {
        let mut text = String::new();
        for (counter, instances) in series {
            let instance = if instances { "*" } else { "" };
            // Writing to a String cannot fail.
            write!(
                text,
                "<metricId><counterId>{counter}</counterId><instance>{instance}</instance></metricId>"
            )
            .unwrap_or_default();
        }
        Self(text)
    }

    /// Without any series a server would send all it has.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One entity's part of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuerySpec<'a> {
    /// The managed object type.
    pub(crate) kind: &'static str,
    /// The entity.
    pub(crate) moref: &'a MoRef,
    /// Samples after this, exclusive.
    pub(crate) after: Option<Stamp>,
    /// Samples up to this, inclusive.
    pub(crate) until: Option<Stamp>,
    /// Which series.
    pub(crate) metric_ids: &'a MetricIds,
    /// 20 for samples, or the period of a roll-up.
    pub(crate) interval_seconds: u32,
}

/// Asks for samples in csv form. Empty where there is nothing to ask: a query without querySpec is a fault.
pub(crate) async fn query_perf(
    session: &Pinned,
    specs: &[QuerySpec<'_>],
    reply_bytes: usize,
) -> Result<Option<Reply>, Error> {
    let manager = session
        .content()
        .perf_manager
        .as_ref()
        .ok_or(Error::Absent("perfManager"))?;
    let bytes = specs.iter().map(|spec| spec.metric_ids.0.len() + 400).sum();
    if specs.is_empty() {
        return Ok(None);
    }
    let request = Request::new("QueryPerf", manager, bytes, |xml| {
        for spec in specs {
            xml.open("querySpec")
                .object("entity", spec.kind, spec.moref.as_str());
            if let Some(after) = spec.after {
                xml.text("startTime", &after.to_string());
            }
            if let Some(until) = spec.until {
                xml.text("endTime", &until.to_string());
            }
            xml.raw(&spec.metric_ids.0);
            xml.text("intervalId", &spec.interval_seconds.to_string())
                .text("format", "csv")
                .close();
        }
    })?;
    session.call(&request, reply_bytes).await.map(Some)
}

/// What the server serves for a type of entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderSummary {
    /// It has real-time samples.
    pub current: bool,
    /// It has roll-ups.
    pub summary: bool,
    /// Seconds between real-time samples.
    pub refresh_seconds: Option<u32>,
}

/// `QueryPerfProviderSummary`.
pub(crate) async fn provider_summary(session: &Pinned, entity: &Object) -> Result<ProviderSummary, Error> {
    let manager = session
        .content()
        .perf_manager
        .as_ref()
        .ok_or(Error::Absent("perfManager"))?;
    let request = Request::new("QueryPerfProviderSummary", manager, 200, |xml| {
        xml.object("entity", &entity.kind, entity.moref.as_str());
    })?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await?;
    reply.read(|xml| {
        let mut summary = ProviderSummary {
            current: false,
            summary: false,
            refresh_seconds: None,
        };
        let returnval = xml.next_child()?;
        if returnval.is_none() {
            return Err(xml::Error::Missing("returnval"));
        }
        while let Some(field) = xml.next_child()? {
            match field.name() {
                "currentSupported" => summary.current = is_true(&xml.text()?),
                "summarySupported" => summary.summary = is_true(&xml.text()?),
                // vcsim says -1 where there is none.
                "refreshRate" => summary.refresh_seconds = xml.text()?.parse().ok().filter(|rate| *rate > 0),
                _ => xml.skip()?,
            }
        }
        Ok(summary)
    })
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}
