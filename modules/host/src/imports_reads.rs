//! What a module can ask: the chain, the orderbook, other servers.

use alloy_primitives::{B256, Bytes};
use shepherd_log::ORDER_UID_BYTES;
use wasmtime::{Result, component::Linker};

use crate::{
    bindings::shepherd::module::{
        chain as wit_chain, http as wit_http, orderbook as wit_orderbook,
    },
    capability::Capability,
    fault::{BadRequest, Failure, Fault, OutputTooLarge},
    fetch,
    imports::{Caller, Guest, address, charge, from_words, words},
    limits::{
        BYTE_FUEL, CALL_FUEL, HTTP_BODY_BYTES_MAX, ORDERBOOK_ANSWER_BYTES_MAX,
        ORDERBOOK_REQUESTS_MAX, REQUEST_FUEL, REQUESTS_PER_CALL_MAX,
    },
    reads::{ReadAnswer, ReadRequest},
};

pub(crate) fn link_chain(linker: &mut Linker<Guest>) -> Result<()> {
    let mut chain = linker.instance(&Capability::Chain.import())?;
    chain.func_wrap("id", |mut caller: Caller<'_>, (): ()| {
        let id = caller.data_mut().record("chain.id")?.terms.chain_id;
        charge(&mut caller, CALL_FUEL)?;
        Ok((id,))
    })?;
    type Requests = (Vec<wit_chain::Request>,);
    chain.func_wrap("read", |mut caller: Caller<'_>, (requests,): Requests| {
        caller.data_mut().record("chain.read")?;
        let requests: Vec<ReadRequest> = requests.into_iter().map(ReadRequest::from).collect();
        let answers = ask(&mut caller, &requests, REQUESTS_PER_CALL_MAX)?;
        let answers: Vec<wit_chain::Answer> = answers.into_iter().map(chain_answer).collect();
        Ok((answers,))
    })
}

pub(crate) fn link_orderbook(linker: &mut Linker<Guest>) -> Result<()> {
    let mut orderbook = linker.instance(&Capability::Orderbook.import())?;
    type Requests = (Vec<wit_orderbook::Request>,);
    orderbook.func_wrap("read", |mut caller: Caller<'_>, (requests,): Requests| {
        caller.data_mut().record("orderbook.read")?;
        let requests = requests
            .into_iter()
            .map(orderbook_request)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|bad| caller.data_mut().stop(bad))?;
        let answers = ask(&mut caller, &requests, ORDERBOOK_REQUESTS_MAX)?;
        let answers: Vec<wit_orderbook::Answer> =
            answers.into_iter().map(orderbook_answer).collect();
        Ok((answers,))
    })
}

pub(crate) fn link_http(linker: &mut Linker<Guest>) -> Result<()> {
    let mut http = linker.instance(&Capability::Http.import())?;
    http.func_wrap("get", |mut caller: Caller<'_>, (url,): (String,)| {
        let terms = caller.data_mut().record("http.get")?.terms.clone();
        charge(&mut caller, BYTE_FUEL * url.len() as u64)?;
        let url = fetch::allowed(&url, &terms.http_hosts)
            .map_err(|fault| caller.data_mut().stop(fault))?;
        let mut answers = ask(&mut caller, &[ReadRequest::Get(url)], 1)?;
        let Some(ReadAnswer::Response { status, body }) = answers.pop() else { unasked() };
        Ok((wit_http::Response { status, body: body.into() },))
    })
}

/// Asks and pays for it, within the limits of the answers.
fn ask(caller: &mut Caller<'_>, requests: &[ReadRequest], most: usize) -> Result<Vec<ReadAnswer>> {
    charge(caller, CALL_FUEL + REQUEST_FUEL * requests.len() as u64)?;
    let guest = caller.data_mut();
    if requests.len() > most {
        let requests = requests.len();
        return Err(guest.stop(OutputTooLarge::Requests { requests, most }));
    }
    let answers = guest.read(requests).map_err(|failure| guest.stop(failure))?;
    let bytes: usize = answers.iter().map(ReadAnswer::bytes).sum();
    charge(caller, BYTE_FUEL * bytes as u64)?;
    Ok(answers)
}

/// Whether the module may have this answer, whatever else it was answered.
pub(crate) fn check_size(request: &ReadRequest, answer: &ReadAnswer) -> Result<(), Failure> {
    let bytes = answer.bytes();
    match (request, answer) {
        (_, ReadAnswer::Order(_) | ReadAnswer::AppData(_))
            if bytes > ORDERBOOK_ANSWER_BYTES_MAX =>
        {
            Err(OutputTooLarge::OrderbookAnswer { bytes }.into())
        }
        (ReadRequest::Get(url), ReadAnswer::Response { .. }) if bytes > HTTP_BODY_BYTES_MAX => {
            Err(OutputTooLarge::HttpBody { url: url.to_string() }.into())
        }
        _ => Ok(()),
    }
}

impl From<wit_chain::Request> for ReadRequest {
    fn from(request: wit_chain::Request) -> ReadRequest {
        match request {
            wit_chain::Request::Call(call) => {
                ReadRequest::Call { to: address(call.to), data: Bytes::from(call.data) }
            }
            wit_chain::Request::Balance(of) => ReadRequest::Balance(address(of)),
            wit_chain::Request::Code(of) => ReadRequest::Code(address(of)),
            wit_chain::Request::Storage(slot) => {
                ReadRequest::Storage { address: address(slot.address), slot: from_words(slot.key) }
            }
        }
    }
}

fn orderbook_request(request: wit_orderbook::Request) -> Result<ReadRequest, Fault> {
    match request {
        wit_orderbook::Request::Order(uid) => {
            let uid = <[u8; ORDER_UID_BYTES]>::try_from(uid)
                .map_err(|uid| BadRequest::OrderUid { bytes: uid.len() })?;
            Ok(ReadRequest::Order(uid))
        }
        wit_orderbook::Request::AppData(hash) => Ok(ReadRequest::AppData(from_words(hash))),
    }
}

fn chain_answer(answer: ReadAnswer) -> wit_chain::Answer {
    match answer {
        ReadAnswer::Returned(data) => wit_chain::Answer::Returned(data.into()),
        ReadAnswer::Reverted(data) => wit_chain::Answer::Reverted(data.into()),
        ReadAnswer::Balance(wei) => wit_chain::Answer::Balance(words(&B256::from(wei))),
        ReadAnswer::Code(code) => wit_chain::Answer::Code(code.into()),
        ReadAnswer::Storage(value) => wit_chain::Answer::Storage(words(&value)),
        ReadAnswer::Order(_) | ReadAnswer::AppData(_) | ReadAnswer::Response { .. } => unasked(),
    }
}

fn orderbook_answer(answer: ReadAnswer) -> wit_orderbook::Answer {
    match answer {
        ReadAnswer::Order(order) => wit_orderbook::Answer::Order(order),
        ReadAnswer::AppData(document) => wit_orderbook::Answer::AppData(document),
        _ => unasked(),
    }
}

fn unasked() -> ! {
    unreachable!("every answer was found to answer its request")
}

impl ReadAnswer {
    fn bytes(&self) -> usize {
        match self {
            ReadAnswer::Returned(data)
            | ReadAnswer::Reverted(data)
            | ReadAnswer::Code(data)
            | ReadAnswer::Response { body: data, .. } => data.len(),
            ReadAnswer::Balance(_) | ReadAnswer::Storage(_) => 32,
            ReadAnswer::Order(text) | ReadAnswer::AppData(text) => {
                text.as_ref().map_or(0, String::len)
            }
        }
    }
}
