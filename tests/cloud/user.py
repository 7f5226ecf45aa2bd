# SPDX-License-Identifier: Apache-2.0

"""Stands in for Keystone: whoever asks may do everything, in one project.

A filter of WSGI that says so in the words in which Keystone's own says who it
is; and, for who asks which Keystone there is before it asks something else, an
application that says so and nothing else.
"""

import json
import typing

#: The project, and the user, too.
PROJECT = 'demo'
_WORDS = {
    'HTTP_X_IDENTITY_STATUS': 'Confirmed',
    'HTTP_X_AUTH_TOKEN': 'demo',
    'HTTP_X_USER_ID': PROJECT, 'HTTP_X_USER_NAME': PROJECT,
    'HTTP_X_PROJECT_ID': PROJECT, 'HTTP_X_PROJECT_NAME': PROJECT,
    # Of an administrator, and of one service that speaks to another.
    'HTTP_X_ROLES': 'admin,manager,member,reader,service'}

_Application = typing.Callable[..., typing.Any]


def filter_factory(global_conf: typing.Any, **local_conf: str,
                   ) -> typing.Callable[[_Application], _Application]:
    """Return the filter, for a file of PasteDeploy."""
    def add_user(application: _Application) -> _Application:
        def call(environ: dict[str, typing.Any],
                 start_response: typing.Any) -> typing.Any:
            environ.update(_WORDS)
            return application(environ, start_response)
        return call
    return add_user


def application(environ: dict[str, typing.Any],
                start_response: typing.Any) -> list[bytes]:
    """Answer whatever is asked with the version that this would be."""
    url = 'http://%s/v3/' % environ['HTTP_HOST']
    body = json.dumps({'version': {
        'id': 'v3.14', 'status': 'stable',
        'links': [{'rel': 'self', 'href': url}]}}).encode()
    start_response('200 OK', [('Content-Type', 'application/json'),
                              ('Content-Length', str(len(body)))])
    return [body]
