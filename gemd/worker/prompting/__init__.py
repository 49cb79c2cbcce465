"""From requests to tokens and from tokens to text, the same for every engine.

========= ====================================================================
renderer  the child process that renders a file's chat template
template  its client, and what the template's output means
control   control tokens in user text, cut so that they cannot form (pure)
prompt    a request's input as token ids
text      bytes of tokens as final text: UTF-8 and stop strings (pure)
========= ====================================================================

An engine brings its vocabulary (`prompt.Tokenizer`). See DESIGN.md beside this file.
"""
