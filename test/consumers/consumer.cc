// The same in C++17, with what C++ brings: an exception, a string, owners that give back by themselves.
#include <aside/aside.h>
#include <aside/group.h>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

namespace
{

struct give_back {
    void operator()(aside_cache *cache) const
    {
        aside_close(cache);
        aside_unref(cache);
    }
    void operator()(aside_group *group) const
    {
        aside_group_unref(group);
    }
    void operator()(aside_value *value) const
    {
        aside_value_unref(value);
    }
};
using cache_ptr = std::unique_ptr<aside_cache, give_back>;
using group_ptr = std::unique_ptr<aside_group, give_back>;
using value_ptr = std::unique_ptr<aside_value, give_back>;

aside_status load(aside_fetch *fetch, void *arg)
{
    size_t len;
    const char *key = static_cast<const char *>(aside_fetch_key(fetch, &len));
    ++*static_cast<int *>(arg);
    std::string text = "value of " + std::string(key, len);
    return aside_fetch_copy(fetch, text.data(), text.size());
}

aside_status check(aside_status status)
{
    if (status < 0)
        throw std::runtime_error(aside_strerror(status));
    return status;
}

std::string text(const value_ptr &value)
{
    return std::string(static_cast<const char *>(aside_value_data(value.get())),
                       aside_value_size(value.get()));
}

} // namespace

int main()
try {
    aside_options options = ASIDE_OPTIONS_INIT;
    options.name = "consumer";
    aside_cache *opened = nullptr;
    check(aside_open(&opened, &options));
    cache_ptr cache(opened);

    int fetches = 0;
    aside_call call = ASIDE_CALL_INIT;
    call.fetch = load;
    call.arg = &fetches;
    call.ttl_ms = 60000;
    for (int i = 0; i < 2; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        check(aside_get_with_fetch(cache.get(), ASIDE_STR("key"), &call, &result));
        std::cout << (result.outcome == ASIDE_OUTCOME_HIT ? "hit: " : "fetched: ")
                  << text(value_ptr(result.value)) << "\n";
    }

    aside_group *made = nullptr;
    check(aside_group_new(&made, nullptr));
    group_ptr group(made);
    aside_result result = ASIDE_RESULT_INIT;
    check(aside_group_do(group.get(), ASIDE_STR("lone key"), &call, &result));
    std::cout << "group: " << text(value_ptr(result.value)) << "\n";

    std::cout << "fetches: " << fetches << "\n";
    return std::string(aside_version()) != ASIDE_VERSION;
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
