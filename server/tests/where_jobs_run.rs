//! Where jobs run, by placement and class: never on the loop, unless a mistake is on.

mod support;

use std::thread;

use server::answer::{Answer, Work};
use server::dispatch::Placement;
use server::http::{Request, Response};
use support::{Serve, Server, Setup, get};

/// Says the name of the thread that ran the job.
fn where_it_runs(request: &Request<'_>) -> Answer {
    let name = || Answer::Now(Response::text(thread::current().name().unwrap_or_default().to_owned()));
    match request.path {
        "/fast" => Answer::Job(Work::fast(move |_| name())),
        "/slow" => Answer::Job(Work::slow(move |_| name())),
        _ => name(),
    }
}

#[test]
fn jobs_of_either_class_run_on_the_pool_and_each_mistake_brings_its_own_to_the_loop() {
    for (placement, fast_on_pool, slow_on_pool) in
        [(Placement::default(), true, true), (Placement::PoolForCpuOnly, true, false), (Placement::Loop, false, false)]
    {
        let mut setup = Setup::default();
        setup.http.placement = placement;
        let server = Server::start(Serve(|request: &Request<'_>, _| where_it_runs(request)), setup);
        let mut client = server.connect();
        let mut ask = |path| {
            client.send(get(path));
            client.response().text()
        };
        let of_loop = ask("/");
        assert!(!of_loop.starts_with("worker-"), "{of_loop}");
        for (path, on_pool) in [("/fast", fast_on_pool), ("/slow", slow_on_pool)] {
            let name = ask(path);
            assert_eq!(name.starts_with("worker-"), on_pool, "{placement:?} {path}: {name}");
            assert_eq!(name == of_loop, !on_pool, "{placement:?} {path}: {name}");
        }
    }
}
