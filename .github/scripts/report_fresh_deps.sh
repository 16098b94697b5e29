#!/usr/bin/env bash
# Keeps at most one open issue that says whether the newest library releases break the book.
#
# Reads from the environment: RESULT (of the job that tried them), RUN_URL (where its log is), and
# GH_REPO and GH_TOKEN for `gh`.
set -euo pipefail

label="fresh-deps"

# The oldest, should somebody have opened a second one by hand.
open="$(gh issue list --label "$label" --state open --json number --jq 'map(.number) | min // empty')"

case "$RESULT" in
  success)
    if [[ -n "$open" ]]; then
      gh issue close "$open" --comment "The newest releases pass again: $RUN_URL"
    fi
    ;;
  failure)
    if [[ -n "$open" ]]; then
      gh issue comment "$open" --body "Still failing: $RUN_URL"
    else
      gh label create "$label" --force --color d93f0b \
        --description "The newest library releases break the book"
      gh issue create --label "$label" --title "The newest library releases break the book" \
        --body "The weekly run with the newest releases instead of the pins failed: $RUN_URL

Readers are not affected: they install the pins. The run's summary lists the releases that were tried. This issue is updated by each failing run and closed by the next one that passes."
    fi
    ;;
  *)
    echo "The run ended as '$RESULT': it says nothing about the releases."
    ;;
esac
