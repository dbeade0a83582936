//! The client of examples/python against the real program: it pays, watches, and repeats without harm. Needs python3 and a
//! package index; without them this test fails and says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_tests::node::{Deltran, Ran};
use deltran_tests::python;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_in_python_pays_and_watches() {
    let examples = python::examples("python");
    let python = python::with(&examples.join("requirements.txt")).await;
    let node = Deltran::start("").await;
    let script = async |name: &str, arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(examples.join(name)).args(arguments).current_dir(node.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        python::run(&mut command).await.unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    node.banks(&[("ALFAAEXX", "1000.00", "1000.00"), ("BRAVINXX", "1000.00", "1000.00")]).await;
    let window = SystemIds::new().next_id(SystemClock.now());
    node.open_window(window).await;

    let pay = ["--payer", "ALFAAEXX", "--payee", "BRAVINXX", "--currency", "USD", "--amount"];
    let first = script("client.py", &[&pay[..], &["12.50", "--count", "5"]].concat()).await;
    assert_eq!(first.code, 0, "{first:?}");
    let lines = |ran: &Ran, begin: &str, end: &str| {
        ran.out.lines().filter(|line| line.starts_with(begin) && line.contains(end)).count()
    };
    assert_eq!(lines(&first, "outcome ", &format!(" COMMITTED {window} new")), 5, "{first:?}");
    assert_eq!(lines(&first, "event ", " transaction.created "), 5, "{first:?}");
    assert_eq!(lines(&first, "5 submitted, 5 accepted, 0 refused, 5 new", ""), 1, "{first:?}");

    // The same five again and one more: nothing is paid twice.
    let again = script("client.py", &[&pay[..], &["12.50", "--count", "6"]].concat()).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!((lines(&again, "outcome ", " replayed"), lines(&again, "event ", "")), (5, 1), "{again:?}");
    assert_eq!(node.transactions().await.len(), 6);

    let conflict = script("client.py", &[&pay[..], &["13.50"]].concat()).await;
    assert_eq!(conflict.code, 1, "{conflict:?}");
    let above = script("client.py", &[&pay[..], &["999999.00", "--reference", "ABOVE"]].concat()).await;
    assert_eq!((above.code, lines(&above, "event ", " transaction.rejected ")), (1, 1), "{above:?}");
    let nobody = script("client.py", &[&pay[..], &["1.00", "--endpoint", "http://127.0.0.1:1"]].concat()).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");

    let reflected = script("reflect.py", &[]).await;
    assert_eq!(reflected.code, 0, "{reflected:?}");
    for service in ["deltran.token.v1.TokenService", "deltran.platform.v1.PlatformService", "grpc.health.v1.Health"] {
        assert_eq!(lines(&reflected, &format!("service {service}"), ""), 1, "{reflected:?}");
    }
    assert!(reflected.out.contains("\"engine\": \"settlement\""), "{reflected:?}");
    node.verify().await;
}
