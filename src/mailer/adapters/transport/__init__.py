"""Make the calls that every message makes without botocore's client layers: UpdateItem, GetItem, BatchGetItem and SendRawEmail.

A message makes three calls: the fence, SES, the outcome. In boto3 the three cost 2.6 ms of CPU, of which TLS, signing and JSON are a
fifth; the rest is endpoint rules, events, e-mail objects for headers, http.client. A direct call costs a third of that. All other calls are
made for a batch, a tenant or a fault, and stay boto3's: so do retries, proxies, credentials, and each answer that is not a plain success.

direct_calls.py  `call_directly(client, formats, again)`: takes the place of the client's `_make_api_call` for these operations alone
formats.py       how they are written, and what a plain success of theirs looks like
signature.py     Signature Version 4 of a request whose headers are known
exchange.py      one request and its answer over one of our connections (`botocore_patches/connections.py`)

How a call goes
  1. Before its first byte, the first call of an operation is botocore's own: endpoint (AWS_ENDPOINT_URL too), headers, scope of the
     signature. It is stopped in the event `before-send`, and what was about to be sent is the pattern for all that follow. If it is not
     what we know to write (another header, method, path or signer), or goes through a proxy, each call of the operation stays botocore's.
  2. Credentials are asked for each request, as botocore asks: our own are refreshed there, a tenant's are bound to the thread
     (`providers/acting.py`), and without any the call fails before it is written.
  3. The event `before-send` is emitted; an emulator in this process (moto) answers it, and nothing is sent.
  4. One request, once. UpdateItem is conditional and the reads change nothing: after no answer, or one that is neither a plain success nor
     a refused condition, botocore makes the call again, with its own retries, waits and errors, and by a client that is given one attempt
     less: a table that hangs must not take the time of four. SendRawEmail is never made again: an answer
     that is not a plain success is given to botocore's parser, and its error is made by botocore's factory; without an answer the exception
     is the one that botocore's session raises, and `track_request` tells whether the request was written.

What it relies on, and what fails first (tests/functional/test_transport.py)
  `client._make_api_call(operation, parameters)`, `client._endpoint`, `client._request_signer._credentials`, `before-send` and its request:
      `test_the_wire_is_that_of_boto3`
  `Endpoint._response_parser_factory`, `Endpoint._add_modeled_error_fields`, `client.exceptions.from_code`:
      `test_every_modelled_error_is_that_of_boto3`
  the headers that botocore writes, each by name:
      `test_every_operation_is_made_directly`
  `pool._get_conn`, `pool._put_conn`, `pool.timeout`, `connection.connect` of urllib3; which exception of it means which of botocore's:
      `test_faults_are_those_of_boto3`

A success has no `ResponseMetadata`: nothing reads it. Endpoints do not depend on parameters: tables are named, not given by ARN.
"""
