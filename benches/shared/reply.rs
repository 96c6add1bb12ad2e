//! Answers to QueryPerf in the form of a real vCenter, with the values of the simulator, as prepared bytes.

use std::fmt::Write as _;

use virt_collector::model::columns::{Column, Instances};
use virt_collector::model::ids::{EntityKind, MoRef, VmId};
use virt_collector::units::Stamp;
use virt_collector::vsphere::counters::CounterInfo;
use virt_collector::vsphere::{Counters, Selection, Target};
use vsphere_simulator::{ClockMode, Simulator, Spec, counters};

/// 2026-01-31T10:00:00Z.
const START: i64 = 1_769_853_600;

/// VMs of one answer: the default of `entities_per_request`.
const VMS: usize = 100;

/// How a server writes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list for each series: what the collector asks for.
    Csv,
    /// An element for each value.
    Normal,
}

/// One answer and what is needed to read it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) document: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) counters: Counters,
    /// Cells in it.
    pub(crate) n_values: u64,
    /// Of all integers in its texts: cells, intervals, numbers of counters, and instances that are numbers.
    pub(crate) sum: i64,
}

/// Answers with each of these numbers of samples, in both forms.
pub(crate) fn prepare(samples: &[usize]) -> Vec<(Form, usize, Prepared)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let spec = Spec {
        vms: VMS,
        hosts: 5,
        powered_off: Some(0),
        clock: ClockMode::Frozen {
            at: (START + 3600) * 1_000_000,
        },
        ..Spec::default()
    };
    let simulator = runtime.block_on(Simulator::start(spec)).unwrap();
    let truth = simulator.truth();
    let catalog: Vec<CounterInfo> = (2..)
        .zip(counters::all())
        .map(|(id, counter)| CounterInfo {
            id,
            name: counter.full_name(),
            unit: counter.unit.to_owned(),
            level: None,
            per_device_level: None,
        })
        .collect();
    let counters = Counters::new(&catalog, &Selection::default());
    let mut asked: Vec<(&str, bool)> = Column::of(EntityKind::Vm)
        .iter()
        .flat_map(|column| {
            column
                .counters()
                .map(|counter| (counter, column.instances != Instances::Aggregate))
        })
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let id = |name: &str| catalog.iter().find(|info| info.name == name).unwrap().id;
    let vms: Vec<_> = truth
        .entities()
        .filter(|entity| entity.record().runs.last().is_some() && entity.moref().starts_with("vm-"))
        .collect();
    let targets: Vec<Target> = (1..)
        .zip(&vms)
        .map(|(number, vm)| Target {
            entity: VmId(number).into(),
            moref: MoRef::new(vm.moref()),
            cpus: 4,
            placement: None,
            after: Stamp::from_seconds(START),
            until: None,
        })
        .collect();

    let mut prepared = Vec::new();
    for form in [Form::Csv, Form::Normal] {
        for samples in samples.iter().copied() {
            let stamps: Vec<i64> = (1..=i64::try_from(samples).unwrap())
                .map(|number| START + 20 * number)
                .collect();
            let mut n_values = 0;
            let mut sum = 0;
            let mut document = String::from(PROLOGUE);
            for vm in &vms {
                begin(&mut document, form, vm.moref(), &stamps);
                sum += 20 * i64::try_from(samples).unwrap();
                for (counter, instances) in &asked {
                    let names = if *instances {
                        vm.instances(counter)
                    } else {
                        vec![String::new()]
                    };
                    for name in names.iter().filter(|name| name.is_empty() != *instances) {
                        // A VM without VMware Tools has fewer counters.
                        let Some(series) = vm.series(counter, name) else {
                            continue;
                        };
                        let cells: Vec<i64> =
                            stamps.iter().map(|stamp| series.value(*stamp).unwrap()).collect();
                        sum += cells.iter().sum::<i64>();
                        sum += i64::from(id(counter)) + name.parse::<i64>().unwrap_or(0);
                        let cells: Vec<String> = cells.iter().map(i64::to_string).collect();
                        n_values += u64::try_from(cells.len()).unwrap();
                        put_series(&mut document, form, id(counter), name, &cells);
                    }
                }
                document.push_str("</returnval>");
            }
            document.push_str(EPILOGUE);
            prepared.push((
                form,
                samples,
                Prepared {
                    document,
                    targets: targets.clone(),
                    counters: counters.clone(),
                    n_values,
                    sum,
                },
            ));
        }
    }
    prepared
}

const PROLOGUE: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    "\n",
    r#"<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/""#,
    "\n ",
    r#"xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/""#,
    "\n ",
    r#"xmlns:xsd="http://www.w3.org/2001/XMLSchema""#,
    "\n ",
    r#"xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">"#,
    "\n<soapenv:Body>\n",
    r#"<QueryPerfResponse xmlns="urn:vim25">"#,
);
const EPILOGUE: &str = "</QueryPerfResponse>\n</soapenv:Body>\n</soapenv:Envelope>";

fn begin(out: &mut String, form: Form, moref: &str, stamps: &[i64]) {
    let kind = match form {
        Form::Csv => "PerfEntityMetricCSV",
        Form::Normal => "PerfEntityMetric",
    };
    write!(
        out,
        r#"<returnval xsi:type="{kind}"><entity type="VirtualMachine">{moref}</entity>"#
    )
    .unwrap();
    let shown = |stamp: &i64| Stamp::from_seconds(*stamp).to_string();
    match form {
        Form::Csv => {
            let stamps: Vec<String> = stamps
                .iter()
                .map(|stamp| format!("20,{}", shown(stamp)))
                .collect();
            write!(out, "<sampleInfoCSV>{}</sampleInfoCSV>", stamps.join(",")).unwrap();
        }
        Form::Normal => {
            for stamp in stamps {
                write!(
                    out,
                    "<sampleInfo><timestamp>{}</timestamp><interval>20</interval></sampleInfo>",
                    shown(stamp)
                )
                .unwrap();
            }
        }
    }
}

fn put_series(out: &mut String, form: Form, id: i32, instance: &str, cells: &[String]) {
    let kind = match form {
        Form::Csv => "PerfMetricSeriesCSV",
        Form::Normal => "PerfMetricIntSeries",
    };
    write!(
        out,
        r#"<value xsi:type="{kind}"><id><counterId>{id}</counterId><instance>{instance}</instance></id>"#
    )
    .unwrap();
    match form {
        Form::Csv => write!(out, "<value>{}</value>", cells.join(",")).unwrap(),
        Form::Normal => {
            for cell in cells {
                write!(out, "<value>{cell}</value>").unwrap();
            }
        }
    }
    out.push_str("</value>");
}
