//! `deltran list`: the lists that parties are screened against, and who may pass nevertheless.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use deltran_api::compliance::v1::{
    AddAllowanceRequest, Allowance, ListAllowancesRequest, ListAllowancesResponse, ListListsRequest, ListListsResponse,
    ListVersion, LoadListResponse, Match, RevokeAllowanceRequest, SearchRequest, SearchResponse,
};
use deltran_kernel::{Clock, SystemClock, Timestamp};
use deltran_runtime::Role;
use deltran_runtime::wire::to_timestamp;

use super::{ClientArgs, Rows, Session, id_or_fresh, list_files, pages};
use crate::output::{Output, count, say, sheet, shown, table, time};
use crate::problem::Problem;

/// How long an allowance counts, where nothing is said.
const DAYS: u32 = 365;

/// Screening lists: load, list, history, search, allow, disallow, allowances
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  deltran list load ./sanctions --source ofac
  deltran list load consolidated.xml --source un
  deltran list load names.txt --source operator
  deltran list list
  deltran list search \"Vostok Shadow Trading\"

One list of each source is in force at a time; loading one replaces that of its source, without a restart. The list of \
invented names that ships with the product is the operator's until another is loaded.
Role compliance is assumed, user \"compliance\".")]
pub struct ListArgs {
    #[command(subcommand)]
    command: Command,
}

/// Who keeps a list.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    /// OFAC's SDN layout: sdn.csv, with alt.csv and add.csv beside it
    Ofac,
    /// The consolidated list of the UN Security Council, XML
    Un,
    /// One's own: UTF-8, one name a line
    Operator,
}

impl Source {
    fn word(self) -> String {
        match self {
            Self::Ofac => "ofac",
            Self::Un => "un",
            Self::Operator => "operator",
        }
        .to_owned()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replaces the list of a source; where it does not parse, the one before stays in force
    #[command(after_help = "Examples:
  deltran list load sdn.csv --source ofac
  deltran list load ./sanctions --source ofac
  deltran list load consolidated.xml --source un")]
    Load {
        /// The file; for ofac sdn.csv or its folder: alt.csv and add.csv are taken from beside it
        file: PathBuf,
        /// Who keeps the list
        #[arg(long, value_enum)]
        source: Source,
    },
    /// Lists what is in force, with versions
    #[command(alias = "show", after_help = "Examples:\n  deltran list list --json")]
    List,
    /// Lists every load there ever was, the latest first
    #[command(after_help = "Examples:\n  deltran list history --source ofac")]
    History {
        /// Only those of this source
        #[arg(long, value_enum)]
        source: Option<Source>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Looks who is like a name, with the reasons; nothing is held by that
    #[command(after_help = "Examples:
  deltran list search \"EXAMPLE, Ivan\" --country IR --dob 1965-01-08
  deltran list search \"Иван Пример\" --explain
  deltran list search --id passport=AB123456

Exit code 0 whether or not anybody is found.")]
    Search {
        /// The name, in any script
        #[arg(required_unless_present = "id", default_value = "")]
        name: String,
        /// Country, such as IR
        #[arg(long, value_name = "CODE")]
        country: Option<String>,
        /// Date of birth: YYYY, YYYY-MM or YYYY-MM-DD
        #[arg(long, value_name = "DATE")]
        dob: Option<String>,
        /// An identifier: passport, national_id, tax_id, registration, lei, bic, imo or wallet; may be repeated
        #[arg(long, value_name = "KIND=VALUE", value_parser = pair)]
        id: Vec<(String, String)>,
        /// At most this many, best first: 1 to 100
        #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
        /// Show word by word why for all of them, not for the best one only
        #[arg(long)]
        explain: bool,
    },
    /// Lets a name pass that was reviewed and is not the entry that it is like
    #[command(after_help = "Examples:
  deltran list allow \"Ivan Example\" --entry ofac:12345 --reason \"born 1990, not 1965\"
  deltran list allow \"Ivan Example\" --entry ofac:12345 --reason \"born 1990\" --days 90

The name is compared in its normal form. An identifier that is the same still holds.")]
    Allow {
        /// The name of the customer
        name: String,
        /// The entry: source and id as `deltran list search` shows them
        #[arg(long, value_name = "SOURCE:ID", value_parser = entry)]
        entry: (String, String),
        /// Why they are not the same, for the record
        #[arg(long)]
        reason: String,
        /// For how many days
        #[arg(long, default_value_t = DAYS, value_name = "N", conflicts_with = "until",
              value_parser = clap::value_parser!(u32).range(1..=731))]
        days: u32,
        /// Until when, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// The allowance's id: the same under the same id is added once [default: a fresh one]
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Takes an allowance back
    #[command(
        after_help = "Examples:\n  deltran list disallow 0190c3d5-0000-7000-8000-000000000001 --reason \"new facts\""
    )]
    Disallow {
        /// The allowance
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
    /// Lists allowances, those that count no more too
    #[command(after_help = "Examples:\n  deltran list allowances --state active")]
    Allowances {
        /// Only those in this state: active, expired, revoked
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (kind, value) = text.split_once('=').ok_or("expected KIND=VALUE, such as passport=AB123456")?;
    Ok((kind.to_owned(), value.to_owned()))
}

fn entry(text: &str) -> Result<(String, String), String> {
    let (source, id) = text.split_once(':').ok_or("expected SOURCE:ID, such as ofac:12345")?;
    Ok((source.to_owned(), id.to_owned()))
}

/// Runs the command.
///
/// # Errors
/// What the platform answers, or a file that cannot be read.
pub async fn run(args: ListArgs, client: ClientArgs, out: Output) -> Result<(), Problem> {
    // Files first: they are wrong whether or not the platform is there.
    let files = match &args.command {
        Command::Load { file, source } => {
            let found = list_files::find(file, &source.word())?;
            Some((list_files::requests(&source.word(), &found)?, list_files::tell(&found)))
        }
        _ => None,
    };
    let session = Session::open(&client, out).await?;
    let mut client = session.compliance(session.caller(Role::Compliance, "compliance", None)?.patient());
    match args.command {
        Command::Load { .. } => {
            let (requests, told) = files.unwrap_or_default();
            if !out.json {
                say(&format!("files: {told}"));
            }
            let answer = client.load_list(futures::stream::iter(requests)).await?.into_inner();
            out.show("deltran.compliance.v1.LoadListResponse", &answer, loaded);
        }
        Command::List => {
            let answer = client.list_lists(ListListsRequest::default()).await?.into_inner();
            out.show("deltran.compliance.v1.ListListsResponse", &answer, |a| lists(a, false));
        }
        Command::History { source, rows } => {
            let source = source.map(Source::word).unwrap_or_default();
            let (lists_, more) = pages(&rows, async |page| {
                let request = ListListsRequest { history: true, source: source.clone(), page };
                let answer = client.clone().list_lists(request).await?.into_inner();
                Ok((answer.lists, answer.next_page_token))
            })
            .await?;
            let answer = ListListsResponse { lists: lists_, next_page_token: String::new() };
            out.show("deltran.compliance.v1.ListListsResponse", &answer, |a| {
                format!("{}\n{}", lists(a, true), shown(a.lists.len(), "loads", more))
            });
        }
        Command::Search { name, country, dob, id, limit, explain } => {
            let identifiers: BTreeMap<String, String> = id.into_iter().collect();
            let (country, date_of_birth) = (country.unwrap_or_default(), dob.unwrap_or_default());
            let request = SearchRequest { name, country, date_of_birth, identifiers, limit };
            let answer = client.search(request).await?.into_inner();
            out.show("deltran.compliance.v1.SearchResponse", &answer, |a| found(a, explain));
        }
        Command::Allow { name, entry: (source, entry_id), reason, days, until, id } => {
            let until = until.unwrap_or_else(|| {
                let days = Duration::from_secs(u64::from(days) * 86_400);
                Timestamp::from_micros(SystemClock.now().micros() + days.as_micros() as i64)
            });
            let request = AddAllowanceRequest {
                allowance_id: id_or_fresh(&id),
                name,
                source,
                entry_id,
                reason,
                expires_at: Some(to_timestamp(until)),
            };
            let answer = client.add_allowance(request).await?.into_inner();
            out.show("deltran.compliance.v1.AddAllowanceResponse", &answer, |a| one(a.allowance.as_ref()));
        }
        Command::Disallow { id, reason } => {
            let request = RevokeAllowanceRequest { allowance_id: id, reason };
            let answer = client.revoke_allowance(request).await?.into_inner();
            out.show("deltran.compliance.v1.RevokeAllowanceResponse", &answer, |a| one(a.allowance.as_ref()));
        }
        Command::Allowances { state, rows } => {
            let state = state.unwrap_or_default().to_ascii_uppercase();
            let (allowances, more) = pages(&rows, async |page| {
                let request = ListAllowancesRequest { page, state: state.clone() };
                let answer = client.clone().list_allowances(request).await?.into_inner();
                Ok((answer.allowances, answer.next_page_token))
            })
            .await?;
            let answer = ListAllowancesResponse { allowances, next_page_token: String::new() };
            out.show("deltran.compliance.v1.ListAllowancesResponse", &answer, |a| {
                format!("{}\n{}", allowances_of(a), shown(a.allowances.len(), "allowances", more))
            });
        }
    }
    Ok(())
}

fn loaded(answer: &LoadListResponse) -> String {
    let list = answer.list.clone().unwrap_or_default();
    sheet([
        ("source", list.source.clone()),
        ("entries", count(u64::from(list.names))),
        ("further names", count(u64::from(list.aliases))),
        ("version", list.version.clone()),
        ("dated", list.dated.clone()),
        ("files", list.files.join(", ")),
        ("loaded at", time(&list.loaded_at)),
        ("loaded by", list.loaded_by.clone()),
        ("unchanged", if answer.unchanged { "yes".to_owned() } else { String::new() }),
    ])
}

fn lists(answer: &ListListsResponse, history: bool) -> String {
    let row = |l: &ListVersion| {
        [
            l.source.clone(),
            l.revision.to_string(),
            count(u64::from(l.names)),
            count(u64::from(l.aliases)),
            l.version.clone(),
            l.dated.clone(),
            time(&l.loaded_at),
            l.loaded_by.clone(),
            if l.in_force && history { "yes".to_owned() } else { String::new() },
        ]
    };
    let head = ["source", "load", "entries", "further names", "version", "dated", "loaded at", "loaded by", "in force"];
    if history {
        table(head, answer.lists.iter().map(row))
    } else {
        let [a, b, c, d, e, f, g, h, _] = head;
        table(
            [a, b, c, d, e, f, g, h],
            answer.lists.iter().map(row).map(|[a, b, c, d, e, f, g, h, _]| [a, b, c, d, e, f, g, h]),
        )
    }
}

/// A score as people write it: 0.9537.
fn score(ten_thousandths: u32) -> String {
    format!("{}.{:04}", ten_thousandths / 10_000, ten_thousandths % 10_000)
}

/// Matches with what they come from.
pub fn matches(found: &[Match]) -> String {
    let row = |m: &Match| {
        [
            score(m.score),
            m.decision().as_str_name().to_owned(),
            format!("{}:{}", m.source, m.entry_id),
            m.kind.clone(),
            m.primary_name.clone(),
            if m.matched_name == m.primary_name { String::new() } else { m.matched_name.clone() },
            m.quality.clone(),
            m.countries.join(" "),
            m.dates_of_birth.join(", "),
            m.allowance_id.clone(),
        ]
    };
    let head =
        ["score", "decision", "entry", "kind", "name", "matched as", "quality", "countries", "born", "allowed by"];
    table(head, found.iter().map(row))
}

/// Why a match has its score, word by word.
pub fn reasons(found: &Match) -> String {
    let pairs = found.pairs.iter().map(|pair| {
        let score = if matches!(pair.how.as_str(), "missing" | "extra") { String::new() } else { score(pair.score) };
        [pair.asked.clone(), pair.listed.clone(), pair.how.clone(), score, pair.weight.to_string()]
    });
    let mut text = format!(
        "{}:{} {}, by the name {}\n{}",
        found.source,
        found.entry_id,
        found.matched_name,
        score(found.name_score),
        table(["asked", "listed", "how", "score", "weight"], pairs)
    );
    for qualifier in &found.qualifiers {
        let change =
            format!("{}{}", if qualifier.effect < 0 { "-" } else { "+" }, score(qualifier.effect.unsigned_abs()));
        text.push_str(&format!("\n{} {change}: {} against {}", qualifier.what, qualifier.asked, qualifier.listed));
    }
    text
}

fn found(answer: &SearchResponse, explain: bool) -> String {
    let mut parts = vec![format!("compared as: {}", answer.normalised_name)];
    if answer.matches.is_empty() {
        parts.push("nobody on the lists in force is like that".to_owned());
    } else {
        parts.push(matches(&answer.matches));
        let explained = if explain { answer.matches.len() } else { 1 };
        parts.extend(answer.matches.iter().take(explained).map(reasons));
    }
    parts.push(format!("lists: {}; rules: {}", answer.list_versions.join(", "), answer.rule_version));
    parts.join("\n")
}

fn one(allowance: Option<&Allowance>) -> String {
    let a = allowance.cloned().unwrap_or_default();
    sheet([
        ("allowance", a.allowance_id),
        ("name", a.name),
        ("compared as", a.normalised_name),
        ("entry", format!("{}:{}", a.source, a.entry_id)),
        ("state", a.state),
        ("reason", a.reason),
        ("added by", a.added_by),
        ("added at", time(&a.added_at)),
        ("expires at", time(&a.expires_at)),
        ("revoked by", a.revoked_by),
        ("revoked at", time(&a.revoked_at)),
        ("revoked for", a.revoke_reason),
    ])
}

fn allowances_of(answer: &ListAllowancesResponse) -> String {
    let row = |a: &Allowance| {
        [
            a.allowance_id.clone(),
            a.state.clone(),
            a.name.clone(),
            format!("{}:{}", a.source, a.entry_id),
            a.reason.clone(),
            a.added_by.clone(),
            time(&a.expires_at),
            a.revoked_by.clone(),
        ]
    };
    let head = ["allowance", "state", "name", "entry", "reason", "added by", "expires at", "revoked by"];
    table(head, answer.allowances.iter().map(row))
}
