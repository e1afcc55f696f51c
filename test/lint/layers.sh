#!/bin/sh
# Proves that includes go strictly downward: a room may include the rooms above it in this table, and
# no other. A room is one pair of files, src/DIRECTORY/NAME.c and .h. The number is its floor, for
# people; the order of the lines is the rule.
set -eu
cd "$(dirname "$0")/../.."

rooms() {
    cat <<'END'
0 base/check
0 base/atomic
0 base/mem
0 base/clock
0 base/lock
0 base/fork
0 base/native
0 base/park
0 base/bytes
0 base/siphash
0 base/aes
0 base/hash
0 base/dice
0 base/table
0 base/thread
0 base/epoch
0 base/home
0 base/counter
0 freshness/jitter
0 freshness/rules
1 store/link
1 store/budget
1 store/tags
1 store/entry
1 store/index
1 store/wheel
1 store/sketch
1 store/ghosts
1 store/policy
1 store/referee
1 store/removal
1 store/limbo
1 flight/waiter
1 flight/cancel
1 flight/inbox
1 flight/executor
1 flight/group
1 flight/graph
1 flight/host
2 store/shard
2 store/store
2 flight/run
2 flight/call
2 flight/solo
3 cache/options
3 cache/reaper
4 cache/cache
4 cache/read
4 cache/stats
4 cache/page
4 cache/metrics
4 cache/flights
4 cache/alone
4 cache/sight
4 cache/answer
4 cache/fetch
4 cache/async
4 cache/verbs
4 cache/text
END
}

# Headers that only one room may include, because it is the only door to what they offer.
doors() {
    cat <<'END'
uthash.h base/table
stdatomic.h base/atomic
END
}

wrong=0
complain() {
    echo "layers: $*"
    wrong=1
}

place_of() {
    rooms | awk -v room="$1" '$2 == room { print NR }'
}

for file in src/*/*.[ch]; do
    room=${file#src/}
    room=${room%.[ch]}
    own=$(place_of "$room")
    if [ -z "$own" ]; then
        complain "$file is a room that test/lint/layers.sh does not list"
        continue
    fi
    for included in $(sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file"); do
        below=${included%.h}
        [ "$below" != "$room" ] || continue
        place=$(place_of "$below")
        if [ -z "$place" ]; then
            complain "$file includes \"$included\", which is no room: write \"directory/room.h\""
        elif [ "$place" -ge "$own" ]; then
            complain "$file includes \"$included\", which is not below it"
        fi
    done
    for header in $(sed -n 's/^[ \t]*#[ \t]*include[ \t]*<\([^>]*\)>.*/\1/p' "$file"); do
        door=$(doors | awk -v header="$header" '$1 == header { print $2 }')
        [ -z "$door" ] || [ "$door" = "$room" ] || complain "$file includes <$header>: only $door may"
    done
done

[ $wrong -eq 0 ] && echo "layers: includes go downward"
exit $wrong
